"""Pictures in local archives, unpacked once."""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from ..core.cache import key_of, prepared
from ..core.errors import InputError
from ..core.hashing import file_hash


ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    RuntimeError,
    NotImplementedError,
)
"""What readers of archives raise; of those with a password `RuntimeError`."""

FILES = "files"

PASSED_OVER = (".", "__MACOSX")
"""So begin names of files and folders that file managers leave behind."""


def is_archive(name: str) -> bool:
    """Whether a file's name is that of an archive."""
    return name.lower().endswith(ENDINGS)


def stem(name: str) -> str:
    """An archive's name without its ending."""
    return next(name[: -len(ending)] for ending in sorted(ENDINGS, key=len)[::-1] if name.lower().endswith(ending))


def unpacked(archive: Path, where: str) -> Path:
    """Folder of the cache with an archive's files; it follows the archive's content, not its name.

    Nothing leaves the folder, links and devices are passed over.

    Args:
        archive: A local file.
        where: Names the data set in messages.

    Raises:
        InputError: It is damaged, protected by a password, or there is no space.
    """

    def make(folder: Path) -> None:
        (folder / FILES).mkdir()
        try:
            for name, opened in _members(archive):
                parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", ".", "..")]
                if parts and not any(part.startswith(PASSED_OVER) for part in parts):
                    target = folder.joinpath(FILES, *parts)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with opened, open(target, "wb") as file:
                        shutil.copyfileobj(opened, file, 1 << 20)
        except DAMAGED as error:
            raise InputError(f"{where}: {archive} cannot be unpacked ({error}); unpack it, give the folder") from error

    try:
        return prepared("archives", key_of("archive 1", file_hash(archive)), make) / FILES
    except OSError as error:
        raise InputError(f"{where}: {archive} cannot be read ({error.strerror or error})") from error


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of an archive's regular files."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if not info.is_dir():
                    yield info.filename, zipped.open(info)
    else:
        with tarfile.open(archive) as opened:
            for info in opened:
                if info.isfile() and (content := opened.extractfile(info)) is not None:
                    yield info.name, content


def is_hidden(name: str) -> bool:
    """Whether file managers made a file or folder of this name, or it is hidden."""
    return os.path.basename(name).startswith(PASSED_OVER)
