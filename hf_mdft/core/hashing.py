"""SHA-256 of files, computed once, and of tensors."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .cache import key_of, remember, remembered
from .regular import check_whole


if TYPE_CHECKING:
    import torch


VERSION = 2
"""Version of the remembered hashes."""

SETTLED = 2_000_000_000
"""Nanoseconds after which a change of a file shows in its time of change, whatever the file system."""


def file_hash(file: Path) -> str:
    """SHA-256 of a file in hexadecimal, kept from run to run while its size, times and inode stay the same."""
    stat = check_whole(file)
    return _hash_of(str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


@functools.lru_cache(maxsize=1024)
def _hash_of(path: str, size: int, modified: int, changed: int, inode: int) -> str:
    key = key_of("sha256", VERSION, path, size, modified, changed, inode)
    if known := remembered("hashes", key):
        return known
    settled = time.time_ns() - max(modified, changed) > SETTLED
    found = sha256_of(path)
    if settled:
        remember("hashes", key, found)
    return found


def sha256_of(path: str) -> str:
    """SHA-256 of a file in hexadecimal, read now."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of tensors in hexadecimal: it changes with every name, dtype, shape and byte, not with their order.

    Args:
        state: Tensors by name, on any device.
    """
    import torch  # here, so that hashing files costs no import of it

    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
