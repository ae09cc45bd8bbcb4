"""Downloading a pool's weights, after showing how much it is and checking that it fits."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.utils import are_progress_bars_disabled, tqdm

from ..core.errors import InputError
from .source import ModelSource


def bytes_to_fetch(sources: Iterable[ModelSource]) -> int:
    """Total size of the weight files that are not here yet; a repo that serves two tasks counts once."""
    files = {(s.reference, name): size for s in sources for name, size in s.missing().items()}
    return sum(files.values())


def fetch_all(sources: list[ModelSource]) -> None:
    """Download all weights that are not here yet.

    Raises:
        InputError: They do not fit on the disk, or cannot be had; what has come whole is kept.
    """
    missing = {source: source.missing() for source in sources if source.missing()}
    if not missing:
        return
    total = bytes_to_fetch(missing)
    cache = Path(HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if total > free:
        raise InputError(
            f"{cache}: the pool needs {size_text(total)} of weights, the disk has {size_text(free)} free; free space "
            "or set HF_HOME"
        )
    if not are_progress_bars_disabled() and os.environ.get("RANK", "0") == "0":
        here = len(sources) - len(missing)
        tqdm.write(
            f"Downloading the weights of {len(missing)} models, {size_text(total)}"
            + (f" ({here} more are in the cache)" if here else ""),
            file=sys.stderr,
        )
    for source in missing:
        source.fetch()


def size_text(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit != "MB" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
