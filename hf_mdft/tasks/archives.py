"""Pictures in local archives, unpacked once."""

from __future__ import annotations

import errno
import logging
import lzma
import os
import posixpath
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from ..core.cache import key_of, prepared
from ..core.errors import InputError
from ..core.hashing import file_hash


logger = logging.getLogger(__name__)

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

OF_THE_ARCHIVE = (None, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EEXIST)
"""Numbers of errors that are no fault of the disk: of names that are a file and a folder, or too long; readers of gzip
and bzip2 raise errors without one."""

PASSED_OVER = (".", "__MACOSX")
"""So begin names of files and folders that file managers leave behind."""

LEFT_BEHIND = ("@eadir", "$recycle.bin", "#recycle")
"""Folders of network drives and bins, in small letters: they hold thumbnails, and what was thrown away."""


def is_archive(name: str) -> bool:
    """Whether a file's name is that of an archive."""
    return name.lower().endswith(ENDINGS)


def stem(name: str) -> str:
    """An archive's name without its ending."""
    return next(name[: -len(ending)] for ending in sorted(ENDINGS, key=len)[::-1] if name.lower().endswith(ending))


def unpacked(archive: Path, where: str) -> Path:
    """Folder of the cache with an archive's files; it follows the archive's content, not its name.

    Nothing leaves the folder. Links stand for files of the archive, those that lead elsewhere are passed over, which a
    warning says; so are devices.

    Args:
        archive: A local file.
        where: Names the data set in messages.

    Raises:
        InputError: It is damaged, protected by a password, or there is no space.
    """

    def make(folder: Path) -> None:
        (folder / FILES).mkdir()
        name, lost = "", []
        try:
            for name, opened in _members(archive):
                parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", ".", "..")]
                if not parts or any(map(is_hidden, parts)):
                    continue
                if opened is None:
                    lost.append(name)
                    continue
                target = folder.joinpath(FILES, *parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened, open(target, "wb") as file:
                    shutil.copyfileobj(opened, file, 1 << 20)
        except (*DAMAGED, OSError) as error:
            if isinstance(error, OSError) and error.errno not in OF_THE_ARCHIVE:
                raise
            why = f"{name[:80]}: {error.strerror}" if getattr(error, "errno", None) else error
            raise InputError(f"{where}: {archive} cannot be unpacked ({why}); unpack it, give the folder") from error
        if lost:
            logger.warning(
                "%s: %d links in %s lead to no file in it, and are passed over: %s, ...",
                where,
                len(lost),
                archive,
                lost[0],
            )

    try:
        return prepared("archives", key_of("archive 2", file_hash(archive)), make) / FILES
    except OSError as error:
        raise InputError(f"{where}: {archive} cannot be read ({error.strerror or error})") from error


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Names and contents of an archive's regular files, and of links to them; no content where a link leads
    elsewhere."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if not info.is_dir():
                    yield info.filename, zipped.open(info)
    else:
        with tarfile.open(archive) as opened:
            for info in opened:
                if info.isfile():
                    yield info.name, opened.extractfile(info)
            members = {posixpath.normpath(info.name): info for info in opened.getmembers()}
            links = [(info.name, _target(info, members)) for info in members.values() if _is_link(info)]
            # In the order of the files: to go back in a compressed archive is to read it anew.
            for name, target in sorted(links, key=lambda link: link[1].offset_data if link[1] else 0):
                yield name, target and opened.extractfile(target)


def _is_link(info: tarfile.TarInfo) -> bool:
    return info.issym() or info.islnk()


def _target(link: tarfile.TarInfo, members: Mapping[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """The file of an archive that a link leads to, over others too; `None` where it leads in circles or elsewhere."""
    info: tarfile.TarInfo | None = link
    for _ in range(40):  # links, as many as Linux follows
        if info is None or not _is_link(info):
            break
        folder = posixpath.dirname(info.name) if info.issym() else ""
        info = members.get(posixpath.normpath(posixpath.join(folder, info.linkname)))
    return info if info is not None and info.isfile() else None


def is_hidden(name: str) -> bool:
    """Whether file managers made a file or folder of this name, or it is hidden."""
    name = os.path.basename(name)
    return name.startswith(PASSED_OVER) or name.lower() in LEFT_BEHIND
