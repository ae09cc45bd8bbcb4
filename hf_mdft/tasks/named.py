"""Which class and which part of the data set the folders of a picture name."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from ..core.class_names import NO_WORDS, SPLITS, is_no_word, plain_name
from ..core.errors import InputError


BESIDE = NO_WORDS["folders of a data set"]
"""How folders are called that lie beside each other in that of a class: pictures, and what is known of them."""


IMAGES = re.compile("images?")
"""How folders of pictures among them are called."""


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


def labels_of(pictures: Sequence[Found], known: Collection[str], where: str) -> list[str | None]:
    """Names of pictures' classes: of the last folder that names no part, or, where that is no class (`cat/images`,
    `dog/images`), of the folder above. What is no class is found within each part of the data set, and is none in all.

    Args:
        pictures: All pictures of a data set.
        known: Names that labels may have, where they are known.
        where: Names the data set in messages.

    Raises:
        InputError: Folders beside each other hold pictures, masks and the like, of which one is meant.
    """
    mixed, names = mixed_folders(pictures), {plain_name(name) for name in known}
    parts: dict[str | None, list[list[str]]] = {}
    found = [picture.classes(mixed) for picture in pictures]
    for picture, folders in zip(pictures, found, strict=True):
        parts.setdefault(picture.part, []).append(folders)
    _refuse_masks(found, names, where)
    passed = set().union(*(_no_classes(part, names, where) for part in parts.values()))
    return [next(iter(folders[1:] if folders[:1] and folders[0] in passed else folders), None) for folders in found]


def _no_classes(found: Sequence[Sequence[str]], known: Collection[str], where: str) -> set[str]:
    """Names of last folders that are no classes.

    Args:
        found: Names of the folders of each picture, the last one first.
        known: Plain names that labels may have.
        where: Names the data set in messages.
    """
    last, above = ({names[depth] for names in found if len(names) > depth} for depth in (0, 1))
    inner, strange = last - above, {name for name in last if plain_name(name) not in known}
    no_words = all(is_no_word(plain_name(name)) for name in strange)
    if not any(plain_name(name) in known for name in above):
        # Where classes are not known, words as `images` are none: `siteA/cat` and `siteB/cat` are one class.
        if (no_words or known) and len(last) == 1 and strange == inner and len(above) > 1:
            return strange
        return set() if known else _images_of_some(found)
    kinds: dict[tuple[str, ...], set[str]] = {}
    for names in found:
        if len(names) > 1 and names[0] in strange and plain_name(names[1]) in known:
            if not plain_name(names[0]).isdecimal():
                kinds.setdefault(tuple(names[1:]), set()).add(names[0])
        elif names and plain_name(names[0]) in known:
            kinds.setdefault(tuple(names), set()).add("")
    for (name, *_), held in kinds.items():
        _refuse_several(held, f"{where}: '{name}'")
    return strange if no_words or (len(inner) == 1 and strange == inner) else set()


def _images_of_some(found: Sequence[Sequence[str]]) -> set[str]:
    """Last folders that hold the pictures of a class beside classes that have no such folder (`cat/images`, `dog`)."""
    within: dict[tuple[str, ...], set[str]] = {}
    if all(not names or re.fullmatch(BESIDE, plain_name(names[0])) for names in found):
        return set()
    for names in found:
        within.setdefault(tuple(names[1:]), set()).add(next(iter(names), ""))
    alone = {next(iter(held)) for above, held in within.items() if above and len(held) == 1}
    images = {name for name in alone if IMAGES.fullmatch(plain_name(name))}
    return {name for name in images if all(len(held) == 1 for held in within.values() if name in held)}


def _refuse_masks(found: Sequence[Sequence[str]], known: Collection[str], where: str) -> None:
    """Pictures, masks and the like beside each other, in the last folders or those above: `images/cat`, `masks/cat`.

    Raises:
        InputError: There are some.
    """
    for depth in (0, 1):
        kinds: dict[tuple[str, ...], set[str]] = {}
        for names in found:
            plain = plain_name(names[depth]) if len(names) > depth else ""
            if plain not in known and re.fullmatch(BESIDE, plain):
                kinds.setdefault(tuple(names[depth + 1 :]), set()).add(names[depth])
        for above, held in kinds.items():
            _refuse_several(held, f"{where}: '{above[0]}'" if above else f"{where}: it")


def _refuse_several(held: Collection[str], what: str) -> None:
    if len(held) > 1 and not all(not kind or IMAGES.fullmatch(plain_name(kind)) for kind in held):
        folders = " and ".join(sorted(kind for kind in held if kind))
        raise InputError(
            f"{what} holds {'pictures and ' if '' in held else ''}folders {folders}: which are its pictures? Give a "
            "folder with those alone in its place"
        )


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


@functools.cache
def part_named(name: str) -> str | None:
    """Part of a data set that a folder's name stands for: its words are those that `datasets` looks for."""
    words = SPLITS.keys() & set(re.split(r"[^a-z]+", name.lower()))
    return SPLITS[min(words)] if words else None
