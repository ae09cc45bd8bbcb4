"""Which class of a head each label of a data set is: by name, never by order alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from ..core.class_names import plain_name
from ..core.errors import InputError


SHOWN = 6
"""Pairs that a proposal shows."""

NUMBER = re.compile(r"(?:label|class)? ?(\d+)")
"""Names that only number their class, as `plain_name` gives them: `3`, `LABEL_3`, `class 3`."""


def label_classes(
    dataset: datasets.Dataset,
    column: str,
    rows: Sequence[int],
    class_names: Sequence[str],
    label_names: Any,
    where: str,
) -> tuple[list[int], dict[str, int]]:
    """Index of each row's class among `class_names`, and of each label by its text.

    Names are compared without case, blanks, `_` and `-`, and by their Unicode form; `LABEL_3`, `class 3` and 3 are the
    same. Classes that no row has may be missing.

    Args:
        dataset: Has the labels: integers, names of `ClassLabel`, text, bytes or booleans.
        column: Name of their column.
        rows: Rows that are asked for.
        class_names: Names of the head's classes.
        label_names: See `Task.label_names`.
        where: Names the data set in messages.

    Raises:
        InputError: A row has no label or several, or names do not tell which class it is: the message proposes pairs.
    """
    feature = dataset.features[column]
    values = dataset.select_columns([column]).with_format("arrow")[:][column].to_pylist()
    values = [values[row] for row in rows]
    empty = [row for row, value in zip(rows, values, strict=True) if value is None or value != value]
    if empty:
        raise InputError(f"{where}: row {empty[0]} has no label; drop it or take another split")
    if isinstance(values[0], list | tuple | dict):
        raise InputError(f"{where}: label column '{column}' holds several labels for an image; give a column with one")
    if all(isinstance(value, float) and value.is_integer() for value in values):
        values = [int(value) for value in values]
    if isinstance(values[0], float) or not isinstance(values[0], int | str | bytes):
        raise InputError(f"{where}: label column '{column}' holds {feature}, expected integers or names")
    names = getattr(feature, "names", None)
    if names and not all(0 <= value < len(names) for value in values):
        outside = next(value for value in values if not 0 <= value < len(names))
        raise InputError(f"{where}: label {outside} is none of the dataset's {len(names)} (-1 hides a split's labels)")
    if isinstance(values[0], int) and min(values) < 0:
        raise InputError(f"{where}: label {min(values)} is no class (-1 hides a split's labels); take another split")
    shown = {value: _text(names[value] if names else value) for value in dict.fromkeys(values)}
    found = _stated(shown, class_names, label_names, where) or _matched(shown, class_names, names, where)
    return [found[value] for value in values], {shown[value]: number for value, number in found.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _stated(
    shown: Mapping[Any, str], class_names: Sequence[str], label_names: Any, where: str
) -> dict[Any, int] | None:
    """Classes as `label_names` gives them: a list by number, names by the label's text, else by number."""
    if label_names is None:
        return None
    if label_names == "in_order":
        label_names = list(class_names)
    by_text: dict[str, Any] = {}
    if isinstance(label_names, Mapping):
        by_text = {plain_name(_text(label)): name for label, name in label_names.items()}
        by_label = label_names
    else:
        by_label = dict(enumerate(label_names))
    positions, found = _positions(class_names), {}
    for value, text in shown.items():
        name = by_text.get(plain_name(text), by_label.get(value))
        if name is None:
            raise InputError(f"{where}: label_names has no name for label {text!r}")
        if plain_name(_text(name)) not in positions:
            raise InputError(
                f"{where}: label_names calls label {text!r} {name!r}, which is no class ({_short(class_names)})"
            )
        found[value] = positions[plain_name(_text(name))]
    return found


def _matched(
    shown: Mapping[Any, str], class_names: Sequence[str], names: Sequence[str] | None, where: str
) -> dict[Any, int]:
    """Classes by name: exactly, else by spelling, else by number where both sides only number their classes."""
    exact = {name: number for number, name in enumerate(class_names)}
    positions, numbers = _positions(class_names), _numbers(class_names)
    found, missing = {}, []
    for value, text in shown.items():
        number = _number(text)
        if text in exact and list(class_names).count(text) == 1:
            found[value] = exact[text]
        elif plain_name(text) in positions:
            found[value] = positions[plain_name(text)]
        elif numbers and number in numbers:
            found[value] = numbers[number]
        else:
            missing.append(text)
    if not missing and (not names or len(set(found.values())) == len(found)):
        return found
    if not missing:
        twice = next(v for v in found.values() if list(found.values()).count(v) > 1)
        same = [shown[value] for value, number in found.items() if number == twice]
        raise InputError(f"{where}: labels {', '.join(same)} are all class '{class_names[twice]}'; give label_names")
    what = f"{where}: label '{missing[0]}' is none of the classes ({_short(class_names)})"
    numbered = names or all(isinstance(value, int) and value < len(class_names) for value in shown)
    own = list(names) if names else [str(n) for n in range(len(class_names))] if numbered else sorted(shown.values())
    if len(own) != len(class_names):
        counts = f"{len(own)} labels and {len(class_names)} classes"
        raise InputError(f"{what}; {counts}: say with label_names which class each label is, {{LABEL: CLASS, ...}}")
    pairs = ", ".join(f"{a}: {b}" for a, b in list(zip(own, class_names, strict=True))[:SHOWN])
    pairs = f"{{{pairs}{', ...' if len(own) > SHOWN else ''}}}"
    if numbered:
        raise InputError(
            f"{what}; if labels number the classes, {pairs}, say so with label_names: in_order, else with "
            "label_names: {LABEL: CLASS, ...}"
        )
    raise InputError(f"{what}; say which class each label is, as in label_names: {pairs}, if that is right")


def _positions(names: Sequence[str]) -> dict[str, int]:
    """Index by plain name, of names that are told apart by it."""
    plain = [plain_name(name) for name in names]
    return {name: number for number, name in enumerate(plain) if plain.count(name) == 1}


def _numbers(names: Sequence[str]) -> dict[int, int]:
    """Index by the number that a class has for a name, where all classes have only numbers."""
    found = [_number(name) for name in names]
    return {} if None in found else {number: index for index, number in enumerate(found)}


def _number(name: str) -> int | None:
    match = NUMBER.fullmatch(plain_name(name))
    return None if match is None else int(match[1])


def _short(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:4])) + (", ..." if len(names) > 4 else "")
