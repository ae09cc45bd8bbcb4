"""Folders that are whole or not there: written beside their place, with a hash of every file, written last."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from .errors import InputError
from .json_files import replace_text
from .scratch import scratch, share


logger = logging.getLogger(__name__)

SEAL = "sha256.json"
"""File with the SHA-256 of every other file of its folder."""

ATTEMPTS = 3
"""Attempts at a folder: another process may be mending it too."""

UNFINISHED = "it was not finished"

ASIDE = "damaged-"
"""Beginning of the names of folders that were set aside."""

_WHOLE: dict[str, tuple] = {}
"""Folders that this process has compared with their seals, and the state in which it found their files."""


def seal(folder: Path) -> None:
    """Write the hashes of a folder's files into it, as its last file; they get the permissions of the folder."""
    share(folder)
    hashes = {name: _digest(folder / name) for name in _files(folder)}
    replace_text(folder / SEAL, json.dumps(hashes, indent=1))


def seal_of(folder: Path) -> str | None:
    """The hashes that `seal` has written into a folder, as text; `None` where there are none."""
    try:
        return (folder / SEAL).read_text(encoding="utf-8")
    except OSError:
        return None


def damage(folder: Path) -> str | None:
    """What of a sealed folder is not as it was written, in words; `None` where all of it is."""
    if not (folder / SEAL).is_file():
        return UNFINISHED
    try:
        hashes = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        state = _state(folder)
        if _WHOLE.get(str(folder)) == state:
            return None
        wrong = [name for name, known in hashes.items() if name not in state[0] or _digest(folder / name) != known]
        wrong += [name for name in state[0] if name not in hashes]
    except (OSError, ValueError, AttributeError, RecursionError):
        return f"{SEAL} is damaged"
    if wrong:
        return f"{wrong[0]} is {'damaged or foreign' if wrong[0] in state[0] else 'missing'}"
    _WHOLE[str(folder)] = state
    return None


def whole(folder: Path) -> bool:
    """Whether a folder is there, as it was written. One that was not finished is removed, a damaged one is set aside;
    a warning says so.

    Raises:
        InputError: No permission.
    """
    if not folder.is_dir():
        return False
    problem = damage(folder)
    if problem == UNFINISHED:
        discard(folder, "remove it")
        logger.warning("%s: %s; removed", folder, problem)
    elif problem is not None:
        logger.warning("%s: %s; set aside as %s", folder, problem, _set_aside(folder).name)
    return problem is None


def sealed(folder: Path, make: Callable[[Path], None], advice: str) -> Path:
    """A folder, made by `make(folder)` where it is missing or not as it was written.

    `make` writes beside the place, and the finished folder is moved there: an interrupted run leaves nothing
    half-written, and two processes may make the same thing.

    Args:
        folder: Where it is or will be.
        make: Writes the files into the folder that it is given.
        advice: What to do where nothing can be written.

    Raises:
        InputError: No space or no permission, or it is damaged each time.
    """
    for _ in range(ATTEMPTS):
        if folder.is_dir():
            problem = damage(folder)
            if problem is None:
                return folder
            logger.warning("%s: %s; it is made anew", folder, problem)
            discard(folder, advice)
        _make(folder, make, advice)
    raise InputError(f"{folder}: damaged each time it is written; check the disk, or {advice}")


def _make(folder: Path, make: Callable[[Path], None], advice: str) -> None:
    try:
        with scratch(folder.parent) as work:
            new = work / folder.name
            new.mkdir()
            make(new)
            seal(new)
            os.rename(new, folder)
    except (OSError, SafetensorError) as error:
        if not folder.is_dir():
            raise InputError(f"{folder}: cannot write ({error}); free space or {advice}") from error


def _set_aside(folder: Path) -> Path:
    aside = folder.with_name(f"{ASIDE}{folder.name}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(aside)
    except OSError as error:
        raise InputError(f"{folder}: damaged, and cannot be moved ({error.strerror})") from error
    return aside


def discard(folder: Path, advice: str) -> None:
    """Take a folder away, whatever other processes do with it at the same time.

    Raises:
        InputError: No permission.
    """
    try:
        with scratch(folder.parent) as work, contextlib.suppress(FileNotFoundError):
            os.rename(folder, work / folder.name)
    except OSError as error:
        raise InputError(f"{folder}: damaged, and cannot be removed ({error}); {advice}") from error


def _files(folder: Path) -> list[str]:
    """Files but the seal, and what file managers leave behind."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return sorted(path.relative_to(folder).as_posix() for path in found if path.name != SEAL)


def _state(folder: Path) -> tuple:
    """Every file's name, and size, times and inode of each: changes whenever one of them does."""
    names = _files(folder)
    stats = [(folder / name).stat() for name in names]
    return tuple(names), tuple((s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for s in stats)


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
