"""Files that are files: reading a pipe or a device would never end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import InputError


SMALL = 1 << 26
"""Bytes above which no config, manifest or recipe is read."""


SMALLEST, LFS = 1024, b"version https://git-lfs"
"""Bytes below which a file may be what a clone without Git LFS has in a large file's place, and how that begins."""


def check_regular(path: Path, where: str | None = None, largest: int | None = None) -> os.stat_result:
    """Whether a path leads to a regular file of at most so many bytes.

    Args:
        path: The path; links are followed.
        where: Names it in messages; the default is the path.
        largest: Most bytes; the default knows no limit.

    Returns:
        The file's state.

    Raises:
        InputError: It does not.
    """
    where = where or str(path)
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror or error})") from error
    if not stat.S_ISREG(state.st_mode):
        kind = "a folder" if stat.S_ISDIR(state.st_mode) else "a pipe or device"
        raise InputError(f"{where}: {kind}, where a file is expected")
    if largest is not None and state.st_size > largest:
        raise InputError(f"{where}: {state.st_size:,} bytes are too many for such a file")
    return state


def check_whole(path: Path, where: str | None = None) -> os.stat_result:
    """`check_regular` of a large file, in whose place a clone without Git LFS has a pointer.

    Raises:
        InputError: As there, or it is such a pointer.
    """
    state = check_regular(path, where)
    try:
        is_pointer = state.st_size < SMALLEST and path.read_bytes().startswith(LFS)
    except OSError as error:
        raise InputError(f"{where or path}: cannot be read ({error.strerror or error})") from error
    if is_pointer:
        raise InputError(
            f"{where or path}: a pointer of Git LFS, not the file itself; run 'git lfs pull' in its folder"
        )
    return state
