"""Pictures in local archives, unpacked once."""

from __future__ import annotations

import contextlib
import errno
import logging
import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from ..core.cache import key_of, prepared
from ..core.errors import InputError
from ..core.hashing import file_hash
from ..core.plain_text import one_line


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

LONGEST_LINK = 4096
"""Bytes of the longest path that Linux takes."""

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


class Member(NamedTuple):
    """A file of an archive, or a link.

    Args:
        name: Its name there.
        position: Where its content lies: to go back in a compressed archive is to read it anew.
        content: Opens its content; of a link `None`.
        leads_to: What a link stands for, by the name of that in the archive; of a file `None`.
    """

    name: str
    position: int
    content: Callable[[], IO[bytes]] | None
    leads_to: str | None = None


def unpacked(archive: Path, where: str) -> Path:
    """Folder of the cache with an archive's files; it follows the archive's content, not its name.

    Nothing leaves the folder. Links to files of the archive become copies, those to its folders links to them; others
    are passed over, which a warning says; so are devices.

    Args:
        archive: A local file.
        where: Names the data set in messages.

    Raises:
        InputError: It is damaged, protected by a password, or there is no space.
    """

    def make(folder: Path) -> None:
        root, name = folder / FILES, ""
        root.mkdir()
        files: dict[str, Member] = {}
        links: dict[str, str] = {}
        try:
            with _opened(archive) as members:
                for member in members:
                    name = member.name
                    if member.leads_to is None:
                        files[posixpath.normpath(name)] = member
                        if path := _place(root, name):
                            _write(member, path)
                    else:
                        links[posixpath.normpath(name)] = posixpath.normpath(member.leads_to)
                lost = _linked(root, files, {name: target for name, target in links.items() if name not in files})
        except (*DAMAGED, OSError) as error:
            if isinstance(error, OSError) and error.errno not in OF_THE_ARCHIVE:
                raise
            why = f"{name[:80]}: {error.strerror}" if getattr(error, "errno", None) else error
            raise InputError(f"{where}: {archive} cannot be unpacked ({why}); unpack it, give the folder") from error
        if lost:
            logger.warning(
                "%s: %d links in %s lead to no file or visible folder in it, and are passed over: %s, ...",
                where,
                len(lost),
                archive,
                one_line(lost[0]),
            )

    try:
        return prepared("archives", key_of("archive 3", file_hash(archive)), make) / FILES
    except OSError as error:
        raise InputError(f"{where}: {archive} cannot be read ({error.strerror or error})") from error


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[Iterator[Member]]:
    """An archive's regular files and links, in its order; they can be read while it is open."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            yield _zipped(zipped)
    else:
        with tarfile.open(archive) as packed:
            yield _packed(packed)


def _zipped(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        name = info.filename
        if stat.S_ISLNK(info.external_attr >> 16):  # its content is what it leads to
            leads_to = archive.read(info) if info.file_size <= LONGEST_LINK else b""
            yield Member(name, 0, None, posixpath.join(posixpath.dirname(name), os.fsdecode(leads_to)))
        elif not info.is_dir():
            yield Member(name, info.header_offset, partial(archive.open, info))


def _packed(archive: tarfile.TarFile) -> Iterator[Member]:
    for info in archive:
        if info.isfile():
            yield Member(info.name, info.offset_data, partial(archive.extractfile, info))
        elif info.issym() or info.islnk():
            folder = posixpath.dirname(info.name) if info.issym() else ""
            yield Member(info.name, 0, None, posixpath.join(folder, info.linkname))


def _place(root: Path, name: str) -> Path | None:
    """Where a file of an archive is unpacked; `None` for one that is not, as it is hidden."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", ".", "..")]
    return root.joinpath(*parts) if parts and not any(map(is_hidden, parts)) else None


def _write(member: Member, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with member.content() as opened, open(path, "wb") as file:
        shutil.copyfileobj(opened, file, 1 << 20)


def _linked(root: Path, files: Mapping[str, Member], links: Mapping[str, str]) -> list[str]:
    """Put in place what links of an archive stand for; gives the names of those that lead to nothing in it."""
    folders = {posixpath.dirname(name) for name in (*files, *links)} if links else set()
    folders |= {str(above) for folder in folders for above in PurePosixPath(folder).parents}
    copies: dict[str, list[Path]] = {}
    of_folders, lost = [], []
    for name in links:
        path, target = _place(root, name), _target(name, links)
        if path is None:
            continue
        if target in files:
            copies.setdefault(target, []).append(path)
        elif target in folders and (folder := _place(root, target)):
            of_folders.append((name, path, folder))
        else:
            lost.append(name)
    for target in sorted(copies, key=lambda target: files[target].position):
        source = _place(root, target)
        if source is None:
            source = copies[target].pop()
            _write(files[target], source)
        for path in copies[target]:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, path)
    for name, path, folder in of_folders:  # the last ones, so that nothing is written through them
        try:
            folder.stat()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(os.path.relpath(folder, path.parent), target_is_directory=True)
        except OSError:  # nothing of it was unpacked, files lie in the link's place, or the system has no links
            lost.append(name)
    return lost


def _target(name: str, links: Mapping[str, str]) -> str | None:
    """What a name in an archive stands for, where it or a folder in it is a link; `None` where they go in circles."""
    for _ in range(40):  # links, as many as Linux follows
        parts = name.split("/")
        starts = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        link = next((start for start in starts if start in links), None)
        if link is None:
            return name
        name = posixpath.normpath(posixpath.join(links[link], name[len(link) + 1 :]))
    return None


def is_hidden(name: str) -> bool:
    """Whether file managers made a file or folder of this name, or it is hidden."""
    name = os.path.basename(name)
    return name.startswith(PASSED_OVER) or name.lower() in LEFT_BEHIND
