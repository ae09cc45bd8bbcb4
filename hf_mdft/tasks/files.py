"""Local files that a data set refers to, whose content its own fingerprint does not know."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time

import datasets
from tqdm.auto import tqdm

from ..core.cache import key_of, remember, remembered
from ..core.hashing import SETTLED


KIND = "picture-files"
"""Folder of the cache with what was found."""


def files_digest(dataset: datasets.Dataset, column: str) -> str:
    """A digest of the content of all local files that a column of the whole table refers to.

    Files are read once while their sizes, times and inodes stay; a copy of them elsewhere, or unpacked anew, has the
    same digest, so that a run goes on from its checkpoints on another machine.
    """
    states = [(path, os.stat(path)) for path in _paths(dataset, column)]
    times = [(path, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for path, s in states]
    key = key_of("files", times)
    found: str | None = remembered(KIND, key)
    if found is not None:
        return found
    digest = hashlib.sha256()
    for path, _ in tqdm(states, desc="Reading pictures", leave=False, disable=len(states) < 2000):
        digest.update(_digest(path))
    if not states or time.time_ns() - max(max(s.st_mtime_ns, s.st_ctime_ns) for _, s in states) > SETTLED:
        remember(KIND, key, digest.hexdigest())
    return digest.hexdigest()


def _digest(path: str) -> bytes:
    digest = hashlib.sha256()
    with contextlib.suppress(OSError), open(path, "rb") as file:  # what cannot be read is told where it is decoded
        for block in iter(functools.partial(file.read, 1 << 20), b""):
            digest.update(block)
    return digest.digest()


def _paths(dataset: datasets.Dataset, column: str) -> list[str]:
    found = []
    for chunk in dataset.data.column(column).chunks:
        outside = chunk.field("bytes").is_null()
        for path in chunk.field("path").filter(outside).to_pylist():
            path = path and path.rsplit("::", 1)[-1].removeprefix("file://")  # of a file in an archive, the archive
            if path is not None and os.path.isfile(path):
                found.append(path)
    return list(dict.fromkeys(found))
