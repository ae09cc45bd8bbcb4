"""Data sets that `save_to_disk` has written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets

from ..core.errors import InputError
from .parts import part_of


STATE, INFO, PARTS = "state.json", "dataset_info.json", "dataset_dict.json"
"""Files that tell a data set, and one of several parts."""

NAME = re.compile(r"(\w+(?:\.\w+)*)(\[[^\]]*\](\(\w+\))?)?")
"""What a part is called; a saved slice of one has the text that it was asked for with, such as `train[:100]`."""


def is_saved(path: Path) -> bool:
    """Whether a path leads to such a folder."""
    return (path / PARTS).is_file() or all((path / name).is_file() for name in (STATE, INFO))


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
    if isinstance(found, datasets.DatasetDict):
        return part_of(found, split, where)
    name = NAME.fullmatch(str(found.split or "train"))
    return part_of({name[1] if name else "train": found}, split, where)
