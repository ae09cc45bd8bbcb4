"""Pictures in a local folder: all of them, with the class and the part of the data set that folders name."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

from ..core.errors import InputError
from ..core.plain_text import one_line
from .archives import is_archive, is_hidden, stem, unpacked
from .decode import FORMATS
from .named import Found, labels_of, part_named
from .parts import part_of


logger = logging.getLogger(__name__)

LABEL = "label"
"""Column of classes, as `datasets` calls it."""

PHONES = frozenset({".heic", ".heif"})


def pictures_in(root: Path, where: str) -> list[Found]:
    """All pictures in a folder (or archive) and those in it, in the order of their names. Hidden files are none; a
    folder that links lead to twice is looked at once.

    Args:
        root: The folder or archive.
        where: Names the data set in messages.

    Raises:
        InputError: There is none, or an archive cannot be unpacked.
    """
    walk = _Walk(where)
    walk.all_of(root)
    found, other = walk.found, [name for name in walk.other if Path(name).stem != "metadata"]
    kinds = Counter(Path(name).suffix.lower() or "no ending" for name in other)
    said = ", ".join(f"{count} {ending}" for ending, count in kinds.most_common(3))
    said += "; convert HEIC to JPEG" if PHONES & kinds.keys() else ""
    if not found:
        raise InputError(f"{where}: {root}: no images in this folder{f' ({said})' if said else ''}")
    if other:
        logger.warning(
            "%s: %d files in %s are no pictures that can be read (%s): %s, ...",
            where,
            len(other),
            root,
            said,
            one_line(other[0]),
        )
    for picture in found:
        _check_name(picture, root, where)
    return sorted(found)


def _check_name(picture: Found, root: Path, where: str) -> None:
    try:
        picture.path.encode()
    except UnicodeEncodeError as error:  # tables of `datasets` hold no such text
        name = os.fsencode(os.path.join(*picture.folders, os.path.basename(picture.path)))
        raise InputError(f"{where}: {root}: the name {name!r} is no UTF-8; rename it") from error


def files_in(root: Path) -> list[str]:
    """All files in a folder and those in it, but for hidden ones; a folder that links lead to twice is looked at once,
    as in `pictures_in`."""
    found, tops, seen = [], [str(root)], set()
    for top in tops:
        for here, folders, names in os.walk(top):
            state = os.stat(here)
            if (state.st_dev, state.st_ino) in seen:
                folders.clear()
                continue
            seen.add((state.st_dev, state.st_ino))
            folders[:] = sorted(name for name in folders if not is_hidden(name))
            tops += [link for name in folders if os.path.islink(link := os.path.join(here, name))]
            found += [os.path.join(here, name) for name in names if not is_hidden(name)]
    return sorted(found)


class _Walk:
    """A walk through a folder and those in it. Links to folders are followed when all else was looked at: they give
    what lies elsewhere, and no picture two classes."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.found: list[Found] = []
        self.other: list[str] = []
        self._left: list[tuple[Path, tuple[str, ...], set[tuple[int, int]]]] = []

    def all_of(self, root: Path) -> None:
        self._left.append((root, (), set()))
        for here, folders, seen in self._left:
            self._look(here, folders, seen)

    def _look(self, here: Path, folders: tuple[str, ...], seen: set[tuple[int, int]]) -> None:
        if here.is_file():
            here, seen = unpacked(here, self.where), set()  # no links lead out of it; another one may hold the same
        try:
            state = here.stat()
            if (state.st_dev, state.st_ino) in seen:
                return
            seen.add((state.st_dev, state.st_ino))
            names = sorted(name for name in os.listdir(here) if not is_hidden(name))
        except OSError as error:
            raise InputError(f"{self.where}: {here}: cannot be read ({error.strerror})") from error
        for name in names:
            path = here / name
            if path.is_dir() and path.is_symlink():
                self._left.append((path, (*folders, name), seen))
            elif path.is_dir():
                self._look(path, (*folders, name), seen)
            elif is_archive(name) and path.is_file():
                self._look(path, (*folders, stem(name)), seen)
            elif path.suffix.lower() in endings():
                self.found.append(Found(str(path), folders))
            else:
                self.other.append(str(path))


@cache
def endings() -> frozenset[str]:
    """Endings of files that are pictures."""
    Image.init()
    return frozenset({ending for ending, kind in Image.EXTENSION.items() if kind in FORMATS} | {".mpo"})


def folder_of_images(root: Path, column: str, where: str, known: Collection[str] = ()) -> datasets.Dataset:
    """All pictures in a folder, whatever parts its folders name, with their classes. A folder that may be a part or a
    class is a class beside folders that name no part.

    Args:
        root: The folder or archive.
        column: Name of the column of images.
        where: Names the data set in messages.
        known: See `labels_of`.

    Raises:
        InputError: There is none, or it is open which folders are classes.
    """
    pictures = pictures_in(root, where)
    labels = labels_of(pictures, known, where)
    return _table(pictures, labels, column, _classes(labels))


def part_of_images(
    root: Path, split: Any, column: str, where: str, known: Collection[str] = ()
) -> datasets.Dataset | datasets.DatasetDict:
    """Pictures of a part of a folder; all parts, where none is named.

    Args:
        root: The folder or archive.
        split: As in `load_dataset`; a folder without parts is all `train`.
        column: Name of the column of images.
        where: Names the data set in messages.
        known: See `labels_of`.

    Raises:
        InputError: There is no such part, or a folder's name may be a part's or a class's.
    """
    pictures = pictures_in(root, where)
    inside = [picture for picture in pictures if picture.part]
    outside = [picture for picture in pictures if not picture.part]
    if inside and outside:
        name = next(name for name in inside[0].folders if part_named(name))
        raise InputError(
            f"{where}: {root}: {name}: is it a class or a part of the data set? {outside[0].path} lies in no such "
            "folder; rename one of the two, give data_files, or the folder's path alone for all pictures in it"
        )
    parts: dict[str, list[Found]] = {}
    for picture in pictures:
        parts.setdefault(picture.part or "train", []).append(picture)
    return chosen(parts, split, column, where, known)


def chosen(
    pictures: Mapping[str, Sequence[Found]], split: Any, column: str, where: str, known: Collection[str] = ()
) -> datasets.Dataset | datasets.DatasetDict:
    """The part that `split` says, as `load_dataset` does; all parts know the classes of all.

    Args:
        pictures: Pictures by part.
        split, column, where, known: As in `part_of_images`.

    Raises:
        InputError: There is no such part.
    """
    found = iter(labels_of([picture for part in pictures.values() for picture in part], known, where))
    labels = {name: [next(found) for _ in part] for name, part in pictures.items()}
    classes = _classes([label for part in labels.values() for label in part])
    parts = {name: _table(part, labels[name], column, classes) for name, part in pictures.items()}
    if split is None:
        return datasets.DatasetDict(parts)
    return part_of(parts, split, where)


def _classes(labels: Sequence[str | None]) -> list[str]:
    return sorted({label for label in labels if label})


def _table(
    pictures: Sequence[Found], labels: Sequence[str | None], column: str, classes: list[str]
) -> datasets.Dataset:
    features: dict[str, Any] = {column: datasets.Image(decode=False)}
    values: dict[str, list] = {column: [{"bytes": None, "path": picture.path} for picture in pictures]}
    if classes and column != LABEL:
        numbers = {name: number for number, name in enumerate(classes)}
        features[LABEL] = datasets.ClassLabel(names=classes)
        values[LABEL] = [numbers.get(label) for label in labels]
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))
