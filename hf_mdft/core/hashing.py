"""SHA-256 of files, computed once."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import time
from pathlib import Path

from .cache import cache_root, key_of


SETTLED = 2_000_000_000
"""Nanoseconds after which a change of a file shows in its time of change, whatever the file system."""


def file_hash(file: Path) -> str:
    """SHA-256 of a file, remembered from run to run while nothing says that it was touched."""
    stat = file.stat()
    return _hash_of(str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


@functools.lru_cache(maxsize=1024)
def _hash_of(path: str, size: int, modified: int, changed: int, inode: int) -> str:
    known = cache_root() / "hashes" / key_of("sha256 1", path, size, modified, changed, inode)
    with contextlib.suppress(OSError, ValueError):
        if re.fullmatch("[0-9a-f]{64}", text := known.read_text()):
            return text
    settled = time.time_ns() - max(modified, changed) > SETTLED
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if settled:
        with contextlib.suppress(OSError):
            known.parent.mkdir(parents=True, exist_ok=True)
            work = known.with_name(f".{known.name}-{os.getpid()}")
            work.write_text(digest.hexdigest())
            work.replace(known)
    return digest.hexdigest()
