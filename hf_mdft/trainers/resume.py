"""Going on where an interrupted run stopped, and only if it was the same run."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from ..core.cache import key_of
from ..core.errors import InputError
from .base import EXTRA_STATE


KEY_FILE = "run.key"

IRRELEVANT = {
    "output_dir", "logging_dir", "run_name", "report_to", "disable_tqdm", "log_level", "logging_steps", "save_steps",
    "save_total_limit", "save_strategy", "hub_token", "hub_model_id", "push_to_hub", "per_device_eval_batch_size",
    "logging_strategy", "logging_first_step", "dataloader_num_workers", "accelerator_config", "ddp_backend",
    "local_rank", "ddp_timeout", "rounds", "hub_strategy", "hub_private_repo", "hub_always_push", "hub_revision",
}  # fmt: skip
"""Arguments that change where and how a run is done, but not its result (`rounds`: no round depends on later ones)."""


def arguments_key(args: TrainingArguments) -> dict[str, Any]:
    """Arguments that a result depends on, by name, JSON-able."""
    return {name: value for name, value in args.to_dict().items() if name not in IRRELEVANT}


def _last_complete(folder: Path) -> str | None:
    """Newest checkpoint with both state files; one that was cut off while it was saved is removed."""
    complete = []
    for path in folder.glob("checkpoint-*"):
        if (path / EXTRA_STATE).is_file() and (path / TRAINER_STATE_NAME).is_file():
            complete.append(path)
        else:
            shutil.rmtree(path)
    return str(max(complete, key=lambda path: int(path.name.rpartition("-")[2]))) if complete else None


def resumable(folder: Path, parts: Any, own_files: Iterable[str] = ()) -> str | None:
    """Last checkpoint in `folder` if it belongs to the run that `parts` describe; else the folder is made ready.

    Checkpoints (and `own_files`) of another run are removed, so that a changed input never meets a stale result.

    Args:
        folder: Folder of the run's work in progress.
        parts: Everything that the result depends on, JSON-able, with a version of what is stored.
        own_files: Names of files and folders beside the checkpoints that hold results of the run.

    Raises:
        InputError: No space or no permission.
    """
    key = key_of(parts)
    file = folder / KEY_FILE
    try:
        if file.is_file() and file.read_text(encoding="utf-8") == key:
            return _last_complete(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if file.is_file():
            for path in [*folder.glob("checkpoint-*"), *(folder / name for name in own_files)]:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        file.write_text(key, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder}: cannot write ({error.strerror}); choose another output folder") from error
    return None
