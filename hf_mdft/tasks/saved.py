"""Data sets that `save_to_disk` has written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from ..core.errors import InputError
from .parts import part_of


STATE, PARTS = "state.json", "dataset_dict.json"
"""Files that tell a data set, and one of several parts."""


def is_saved(path: Path) -> bool:
    """Whether a path leads to such a folder."""
    return any((path / name).is_file() for name in (STATE, PARTS))


def saved(path: Path, split: Any, where: str) -> datasets.Dataset | datasets.DatasetDict:
    """A saved data set, or the part of it that `split` says, as `load_dataset` does; one without parts is all `train`.

    Args:
        path: Its folder.
        split: The split; `None` gives all parts.
        where: Names it in messages.

    Raises:
        InputError: It cannot be read, or has no such part.
    """
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # the readers of `datasets` raise whatever they stumble over
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise InputError(f"{where}: {path}: a data set of save_to_disk that cannot be read ({reason})") from error
    if split is None:
        return found
    parts = found if isinstance(found, datasets.DatasetDict) else {str(found.split or "train"): found}
    return part_of(parts, split, where)
