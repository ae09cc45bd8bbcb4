"""Classes of different models and data sets, matched by their names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from .errors import InputError


def plain_name(name: str) -> str:
    """A class name without what spellings differ in: case, `_` and `-` for a space, spaces around it, Unicode form."""
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", str(name)).casefold()).replace("_", " ")
    # A hyphen at either end is a sign, and one between a word and a number: -0.5, A-, temp -5; not in 747 -400.
    return " ".join(re.sub(r"(?<=[^\s-])(?!(?<=\D)\s+-\d)\s*-+\s*(?=[^\s-])", " ", name).split())


def same_classes(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether two lists name the same classes, in any order. Names that differ in spelling alone are the same where no
    list has two such."""
    return sorted(a) == sorted(b) or (
        _all_differ(a) and _all_differ(b) and sorted(map(plain_name, a)) == sorted(map(plain_name, b))
    )


def missing_classes(a: Sequence[str], b: Sequence[str]) -> list[str]:
    """Classes of `a` that `b` does not name."""
    known = set(map(plain_name, b))
    return [name for name in a if plain_name(name) not in known]


def displaced_classes(a: Sequence[str], b: Sequence[str]) -> list[str]:
    """Classes of `a` that `b` names at another position: a sign that the order of the two is not the same."""
    positions: dict[str, set[int]] = {}
    for number, name in enumerate(b):
        positions.setdefault(plain_name(name), set()).add(number)
    return [name for number, name in enumerate(a) if number not in positions.get(plain_name(name), {number})]


def order_by_name(wanted: Sequence[str], own: Sequence[str]) -> list[int]:
    """Index in `own` of every class of `wanted`, where both name the same classes (`same_classes`); those of one name
    stay in order."""
    form = str if sorted(wanted) == sorted(own) else plain_name
    left: dict[str, list[int]] = {}
    for number, name in enumerate(own):
        left.setdefault(form(name), []).append(number)
    return [left[form(name)].pop(0) for name in wanted]


def positions(names: Sequence[str], own: Sequence[str], what: str, whose: str) -> list[int]:
    """Index in a classifier's classes of each of as many names: by name where both are the same classes, else in
    order, for the names are other ones.

    Args:
        names: The names.
        own: The classifier's.
        what: What the names are, in messages.
        whose: The classifier, in messages.

    Raises:
        InputError: Some names are the classifier's at other positions, and not all are.
    """
    if same_classes(names, own):
        return order_by_name(names, own)
    if displaced := displaced_classes(names, own):
        raise InputError(
            f"{what} and {whose} both name '{displaced[0]}', at different positions, but not all classes alike: spell "
            f"all of them as {whose} does, in any order ({', '.join(own[:4])}{', ...' if len(own) > 4 else ''})"
        )
    return list(range(len(own)))


def shared_classes(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """Index in `a` and in `b` of every class that both name, but for those of which spelling leaves open which they
    are."""
    found = []
    for number, name in enumerate(a):
        exact = [other for other, theirs in enumerate(b) if theirs == name]
        alike = exact or [other for other, theirs in enumerate(b) if plain_name(theirs) == plain_name(name)]
        if len(alike) == 1:
            found.append((number, alike[0]))
    taken = [other for _, other in found]
    return [(number, other) for number, other in found if taken.count(other) == 1]


def are_placeholders(names: Sequence[str]) -> bool:
    """Whether names say nothing: transformers' `LABEL_0`, ..., or the `class 0`, ... of heads without any."""
    return all(re.fullmatch(r"(label|class) \d+", plain_name(name)) for name in names)


SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Words for parts of a data set, and what `datasets` calls each."""


NO_WORDS = {
    "empty names": r"\W*",
    "WordNet codes": r"n\d{8}( .*)?",
    "numbers": r"[\d.,:/ -]+",
    "placeholders": r"(label|class|category|cluster|group|folder|fold|id|img|image|dsc|[a-z])[ -]*\d+",
    "parts of a data set": rf"({'|'.join(SPLITS)}|unlabell?ed)( ?(set|data|images|split|part|folder|dir))?",
    "folders of a data set": r"images?|masks?|annotations?|labels?|macosx",
}
"""What names can be that texts cannot be made of, and how they look, as `plain_name` gives them."""

MOST = 0.5
"""Share of such names from which on a list is refused: a class may be called train among others."""


def is_no_word(plain: str) -> bool:
    """Whether a plain name is of a form in `NO_WORDS`."""
    return any(re.fullmatch(form, plain) for form in NO_WORDS.values())


def no_words(names: Sequence[str]) -> str | None:
    """What names are that texts cannot be made of; `None` where they may be meant as classes."""
    plain = [plain_name(name) for name in names]
    if len(set(plain)) < 2:
        return "a single class"
    if "" in plain:
        return "partly empty"
    alike = {what: sum(re.fullmatch(form, name) is not None for name in plain) for what, form in NO_WORDS.items()}
    what = max(alike, key=alike.__getitem__)
    if sum(map(is_no_word, plain)) > MOST * len(plain):
        return what
    return None


def _all_differ(names: Sequence[str]) -> bool:
    return len(set(map(plain_name, names))) == len(names)
