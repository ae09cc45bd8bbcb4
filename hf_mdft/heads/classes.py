"""Classes of different models matched by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence


def plain_name(name: str) -> str:
    """A class name without what spellings differ in: case, `_` and `-` for a space, spaces around it."""
    return " ".join(str(name).casefold().replace("_", " ").replace("-", " ").split())


def same_classes(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether two lists name the same classes, in any order."""
    return _sorted(a) == _sorted(b) or (_distinct(a) and sorted(map(plain_name, a)) == sorted(map(plain_name, b)))


def missing_classes(a: Sequence[str], b: Sequence[str]) -> list[str]:
    """Classes of `a` that `b` does not name."""
    known = set(map(plain_name, b))
    return [name for name in a if plain_name(name) not in known]


def order_by_name(wanted: Sequence[str], own: Sequence[str]) -> list[int]:
    """Index in `own` of every class of `wanted`; every one must be there. Spelling decides where it tells classes
    apart."""
    form = str if set(wanted) <= set(own) else plain_name
    index = {form(name): number for number, name in enumerate(own)}
    return [index[form(name)] for name in wanted]


def are_placeholders(names: Sequence[str]) -> bool:
    """Whether names say nothing: transformers' `LABEL_0`, `LABEL_1`, ..."""
    return all(re.fullmatch(r"LABEL_\d+", name) for name in names)


def _sorted(names: Sequence[str]) -> list[str]:
    return sorted(map(str, names))


def _distinct(names: Sequence[str]) -> bool:
    return len(set(map(plain_name, names))) == len(names)
