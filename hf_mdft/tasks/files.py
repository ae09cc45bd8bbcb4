"""Local files that a data set refers to, whose content its own fingerprint does not know."""

from __future__ import annotations

import os
import time

import datasets
import pyarrow.compute as pc
from tqdm.auto import tqdm

from ..core.cache import key_of, remember, remembered
from ..core.hashing import SETTLED, sha256_of


KIND = "picture-files"
"""Folder of the cache with what was found."""

MANY = 2000
"""Files from which on a progress bar shows that they are read."""


def files_digest(dataset: datasets.Dataset, column: str) -> str:
    """A digest of the content of all local files that the rows of a column refer to, in their order.

    Files are read once while their sizes, times and inodes stay. The same files with other times (staged or unpacked
    anew) have the same digest; others of the same size and time have another.
    """
    states = [(path, _state(path)) for path in _paths(dataset, column)]
    key = key_of("files", states)
    found: str | None = remembered(KIND, key)
    if found is not None:
        return found
    contents, failed = [], False
    for path, state in tqdm(states, desc="Reading pictures", leave=False, disable=len(states) < MANY):
        try:
            contents.append(None if state is None else sha256_of(path))
        except OSError as error:  # told where it is decoded; for now, or for this user
            contents.append(error.errno)
            failed = True
    found = key_of(contents)
    newest = max((max(state[1:3]) for _, state in states if state), default=0)
    if not failed and abs(time.time_ns() - newest) > SETTLED:  # a change within the clock's grain would not be seen
        remember(KIND, key, found)
    return found


def _state(path: str) -> tuple[int, ...] | None:
    """Size, times and inode of a file; none where there is no such file."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):  # a name that no file can have
        return None
    return (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino) if os.path.isfile(path) else None


def _paths(dataset: datasets.Dataset, column: str) -> list[str]:
    """The files, each once; of a file in an archive, the archive."""
    values = dataset.data.column(column)
    paths = pc.if_else(pc.is_null(pc.struct_field(values, "bytes")), pc.struct_field(values, "path"), None)
    if dataset._indices is not None:
        paths = paths.take(dataset._indices.column(0))
    names = [path.rsplit("::", 1)[-1].removeprefix("file://") for path in paths.to_pylist() if path]
    return [name for name in dict.fromkeys(names) if "://" not in name]
