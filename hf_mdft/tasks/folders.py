"""Pictures in a local folder: all of them, with the class and the part of the data set that folders name."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from PIL import Image

from ..core.class_names import SPLITS, is_no_word, plain_name
from ..core.errors import InputError
from .archives import is_archive, is_hidden, stem, unpacked
from .decode import FORMATS
from .parts import part_of


logger = logging.getLogger(__name__)

LABEL = "label"
"""Column of classes, as `datasets` calls it."""

PHONES = frozenset({".heic", ".heif"})


class Found(NamedTuple):
    """A picture in a folder.

    Args:
        path: Its file.
        folders: Names of the folders that lead to it; an archive is one.
    """

    path: str
    folders: tuple[str, ...]

    @property
    def part(self) -> str | None:
        """Part of the data set that a folder names, as `datasets` calls it."""
        return next((part for name in self.folders if (part := part_named(name))), None)

    def classes(self, mixed: Collection[tuple[str, ...]]) -> list[str]:
        """Names that its class may have, the last one first: of folders that name no part.

        Args:
            mixed: See `mixed_folders`.
        """
        folders = enumerate(self.folders)
        return [name for i, name in folders if not part_named(name) or self.folders[:i] in mixed][::-1]


def labels_of(pictures: Sequence[Found], class_names: Collection[str] = ()) -> list[str | None]:
    """Names of pictures' classes: of the last folder that names no part. Where that is called the same for all of
    them, and it is no class (`cat/images`, `dog/images`), of the folder above.

    Args:
        pictures: All pictures of a data set.
        class_names: Names of the task's classes, where they are known.
    """
    mixed = mixed_folders(pictures)
    found = [picture.classes(mixed) for picture in pictures]
    last, above = ({names[depth] for names in found if len(names) > depth} for depth in (0, 1))
    known = {plain_name(name) for name in class_names}
    named = {plain_name(name) for name in last}
    # Where classes are not known, words as `images` are none: `siteA/cat` and `siteB/cat` are one class.
    is_class = last & above or (named & known if known else not all(map(is_no_word, named)))
    depth = 1 if len(last) == 1 and len(above) > 1 and all(found) and not is_class else 0
    return [names[depth] if len(names) > depth else None for names in found]


def mixed_folders(pictures: Sequence[Found]) -> set[tuple[str, ...]]:
    """Where folders are classes, whatever words their names hold: beside one that names no part, and where several lie
    within a part. By the folders that lead there."""
    beside: dict[tuple[str, ...], set[str]] = {}
    for picture in pictures:
        for depth, name in enumerate(picture.folders):
            beside.setdefault(picture.folders[:depth], set()).add(name)
    return {
        above
        for above, names in beside.items()
        if not all(map(part_named, names)) or (len(names) > 1 and any(map(part_named, above)))
    }


def part_named(name: str) -> str | None:
    """Part of a data set that a folder's name stands for: its words are those that `datasets` looks for."""
    words = SPLITS.keys() & set(re.split(r"[^a-z]+", name.lower()))
    return SPLITS[min(words)] if words else None


def pictures_in(root: Path, where: str) -> list[Found]:
    """All pictures in a folder (or archive) and those in it, in the order of their names. Hidden files are none; a
    folder that links lead to twice is looked at once.

    Args:
        root: The folder or archive.
        where: Names the data set in messages.

    Raises:
        InputError: There is none, or an archive cannot be unpacked.
    """
    found, other = [], []
    _walk(root, (), set(), found, other, where)
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
            other[0],
        )
    return sorted(found)


def files_in(root: Path) -> list[Path]:
    """All files in a folder and those in it, but for hidden ones; a folder that links lead to twice is looked at once,
    as in `pictures_in`."""
    found, seen = [], set()
    for here, folders, names in os.walk(root, followlinks=True):
        state = os.stat(here)
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        found += [Path(here, name) for name in names if not is_hidden(name)]
    return sorted(found)


def _walk(
    here: Path, folders: tuple[str, ...], seen: set[tuple[int, int]], found: list[Found], other: list[str], where: str
) -> None:
    if here.is_file():
        here, seen = unpacked(here, where), set()  # no links lead out of it, and another one may hold the same
    try:
        state = here.stat()
        if (state.st_dev, state.st_ino) in seen:
            return
        seen.add((state.st_dev, state.st_ino))
        names = sorted(name for name in os.listdir(here) if not is_hidden(name))
    except OSError as error:
        raise InputError(f"{where}: {here}: cannot be read ({error.strerror})") from error
    for name in names:
        path = here / name
        if path.is_dir():
            _walk(path, (*folders, name), seen, found, other, where)
        elif is_archive(name) and path.is_file():
            _walk(path, (*folders, stem(name)), seen, found, other, where)
        else:
            is_picture = path.suffix.lower() in endings()
            found.append(Found(str(path), folders)) if is_picture else other.append(str(path))


@cache
def endings() -> frozenset[str]:
    """Endings of files that are pictures."""
    Image.init()
    return frozenset({ending for ending, kind in Image.EXTENSION.items() if kind in FORMATS} | {".mpo"})


def folder_of_images(root: Path, column: str, where: str, class_names: Collection[str] = ()) -> datasets.Dataset:
    """All pictures in a folder, whatever parts its folders name, with their classes. A folder that may be a part or a
    class is a class beside folders that name no part.

    Args:
        root: The folder or archive.
        column: Name of the column of images.
        where: Names the data set in messages.
        class_names: See `labels_of`.

    Raises:
        InputError: There is none.
    """
    pictures = pictures_in(root, where)
    labels = labels_of(pictures, class_names)
    return _table(pictures, labels, column, _classes(labels))


def part_of_images(
    root: Path, split: Any, column: str, where: str, class_names: Collection[str] = ()
) -> datasets.Dataset | datasets.DatasetDict:
    """Pictures of a part of a folder; all parts, where none is named.

    Args:
        root: The folder or archive.
        split: As in `load_dataset`; a folder without parts is all `train`.
        column: Name of the column of images.
        where: Names the data set in messages.
        class_names: See `labels_of`.

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
    return chosen(parts, split, column, where, class_names)


def chosen(
    pictures: Mapping[str, Sequence[Found]], split: Any, column: str, where: str, class_names: Collection[str] = ()
) -> datasets.Dataset | datasets.DatasetDict:
    """The part that `split` says, as `load_dataset` does; all parts know the classes of all.

    Args:
        pictures: Pictures by part.
        split, column, where, class_names: As in `part_of_images`.

    Raises:
        InputError: There is no such part.
    """
    found = iter(labels_of([picture for part in pictures.values() for picture in part], class_names))
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
