"""A run's checkpoints: which are whole."""

from __future__ import annotations

from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..core.sealed import whole


def checkpoints(folder: Path) -> list[Path]:
    """Folders of a run's checkpoints, the newest first."""
    found = {int(p.name.rpartition("-")[2]): p for p in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _is_number(p)}
    return [found[step] for step in sorted(found, reverse=True)]


def _is_number(path: Path) -> bool:
    return path.name.rpartition("-")[2].isdigit()


def last_whole(folder: Path) -> str | None:
    """The newest checkpoint that is as it was written; newer ones are removed or set aside."""
    return next((str(path) for path in checkpoints(folder) if whole(path)), None)
