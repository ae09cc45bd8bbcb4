"""Local files that a data set refers to, whose content its own fingerprint does not know."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Sequence

import datasets
import pyarrow.compute as pc
from tqdm.auto import tqdm

from ..core.cache import key_of, remember, remembered
from ..core.hashing import SETTLED


KIND = "picture-files"
"""Folder of the cache with what was found."""

State = tuple[str, tuple[int, ...] | None]
"""A file, and its size, times and inode; none where there is no such file."""


def files_digest(dataset: datasets.Dataset, column: str) -> str:
    """A digest of the content of all local files that the rows of a column refer to, in their order.

    Files are read once while their sizes, times and inodes stay. The same files with other times (staged or unpacked
    anew) have the same digest; others of the same size and time have another.
    """
    try:
        return _digest_of(tuple((path, _state(path)) for path in _paths(dataset, column)))
    except _Unreadable as found:  # for now, or for this user: it is not kept
        return str(found)


class _Unreadable(Exception):
    """A digest of files of which some cannot be read."""


@functools.lru_cache(maxsize=64)
def _digest_of(states: Sequence[State]) -> str:
    key = key_of("files", states)
    found: str | None = remembered(KIND, key)
    if found is not None:
        return found
    digest, failed = hashlib.sha256(), False
    for path, state in tqdm(states, desc="Reading pictures", leave=False, disable=len(states) < 2000):
        try:
            digest.update(b"missing".ljust(32) if state is None else _digest(path))
        except OSError as error:  # told where it is decoded
            digest.update(f"errno {error.errno}".encode().ljust(32))
            failed = True
    if failed:
        raise _Unreadable(digest.hexdigest())
    newest = max((max(state[1:3]) for _, state in states if state), default=0)
    if abs(time.time_ns() - newest) > SETTLED:  # a change within the clock's grain would not be seen
        remember(KIND, key, digest.hexdigest())
    return digest.hexdigest()


def _digest(path: str) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(functools.partial(file.read, 1 << 20), b""):
            digest.update(block)
    return digest.digest()


def _state(path: str) -> tuple[int, ...] | None:
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
