"""Which class of a head each label of a data set is: by name, never by order alone."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from ..core.class_names import are_placeholders, displaced_classes, plain_name
from ..core.errors import InputError


IN_ORDER = "in_order"
"""Option that says that labels number the classes."""

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
        advice = "drop it, take another split, or keep words such as None with keep_default_na: false for CSV"
        raise InputError(f"{where}: row {empty[0]} has no label; {advice}")
    if isinstance(values[0], dict):
        raise InputError(f"{where}: label column '{column}' holds {feature}, expected integers or names")
    if isinstance(values[0], list | tuple):
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
    class_names = list(class_names)
    found = _stated(shown, class_names, label_names, names, where) or _matched(shown, class_names, names, where)
    return [found[value] for value in values], {shown[value]: number for value, number in found.items()}


def known_labels(class_names: Sequence[str], label_names: Any) -> list[str]:
    """Names that labels may have: those of the classes, and of what `label_names` says which class it is.

    Args:
        class_names: Names of the head's classes.
        label_names: See `Task.label_names`.
    """
    if label_names is None:
        others: Any = _numbers(class_names)
    else:
        others = label_names if isinstance(label_names, Mapping) else range(len(class_names))
    return [*class_names, *map(_text, others)]


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _stated(
    shown: Mapping[Any, str], class_names: Sequence[str], label_names: Any, names: Sequence[str] | None, where: str
) -> dict[Any, int] | None:
    """Classes as `label_names` gives them: a list by number, names by the label's text or by its number."""
    if label_names is None:
        return None
    is_list = label_names != IN_ORDER and not isinstance(label_names, Mapping)
    if is_list and not all(_is_number(value, text) for value, text in shown.items()):
        return None  # words, which are matched by name
    if label_names == IN_ORDER or (is_list and list(label_names) == list(class_names)):
        displaced = displaced_classes(names, class_names) if names and not _only_count(names, class_names) else []
        if displaced:
            raise InputError(
                f"{where}: label_names says that labels are in the order of the classes ({_short(class_names)}), but "
                f"the data set calls label {names.index(displaced[0])} '{displaced[0]}': leave label_names out, and "
                "labels are matched by name, or say which class each label is, {LABEL: CLASS, ...}"
            )
        numbers = [_number(name) for name in names or ()]
        if None not in numbers and numbers != sorted(numbers) and not _numbers(class_names):
            pairs = sorted(zip(numbers, names or (), strict=True))
            by_number = [(name, own) for (_, name), own in zip(pairs, class_names, strict=False)]
            raise InputError(
                f"{where}: label_names says that labels are in the order of the classes, but the data set orders its "
                f"labels as text ({_short(names or ())}): say which class each is, as in {_pairs(by_number)}, if that "
                "is right"
            )
        said = "its list" if is_list else IN_ORDER
        return {value: _in_order(value, text, len(class_names), said, where) for value, text in shown.items()}
    stated = _by_label(shown, label_names, names, where)
    positions = _positions(class_names)
    found = {}
    for value, name in stated.items():
        name = _text(name)
        found[value] = class_names.index(name) if class_names.count(name) == 1 else positions.get(plain_name(name))
        if found[value] is None:
            raise InputError(
                f"{where}: label_names calls label {shown[value]!r} {name!r}, which is no class "
                f"({_short(class_names)})"
            )
    return found


def _in_order(value: Any, text: str, count: int, said: str, where: str) -> int:
    """The class that a label's number says."""
    number = int(value if isinstance(value, int) else text) if _is_number(value, text) else None
    if number is None or not 0 <= number < count:
        raise InputError(f"{where}: label_names: {said}: label {text!r} is no number from 0 to {count - 1}")
    return number


def _only_count(names: Sequence[str], class_names: Sequence[str]) -> bool:
    """Whether a data set's names are numbers that count its labels, from another start than the classes, rather than
    names of the classes in another order."""
    numbers = [_number(name) for name in names]
    if None in numbers or numbers != sorted(numbers):
        return False
    return not {plain_name(name) for name in names} <= {plain_name(name) for name in class_names}


def _is_number(value: Any, text: str) -> bool:
    return isinstance(value, int) or re.fullmatch(r"[0-9]+", text) is not None


def _by_label(shown: Mapping[Any, str], label_names: Any, names: Sequence[str] | None, where: str) -> dict[Any, Any]:
    """The name that `label_names` has for each label: all by their text, or all by their numbers."""
    if not isinstance(label_names, Mapping):
        return _whole({value: _get(label_names, value, text) for value, text in shown.items()}, shown, where)
    exact = {_text(label): name for label, name in label_names.items()}
    plain = [plain_name(label) for label in exact]
    alike = {key: name for key, name in zip(plain, exact.values(), strict=True) if plain.count(key) == 1}
    by_text = {value: exact.get(text, alike.get(plain_name(text))) for value, text in shown.items()}
    by_number = {value: label_names.get(value) if isinstance(value, int) else None for value in shown}
    if names and (strange := [label for label in exact if not _is_label(label, names)]):
        raise InputError(f"{where}: label_names: {strange[0]!r} is no label of the data set ({_short(names)})")
    ways = [way for way in (by_text, by_number) if None not in way.values()]
    if len(ways) == 2 and by_text != by_number:
        raise InputError(
            f"{where}: the keys of label_names may be labels' names or numbers, which differ (label {min(by_number)} "
            f"is called '{shown[min(by_number)]}'); put names in quotes"
        )
    return ways[0] if ways else _whole(by_text, shown, where)


def _is_label(label: str, names: Sequence[str]) -> bool:
    is_number = label.isdecimal() and int(label) < len(names)
    return is_number or plain_name(label) in {plain_name(name) for name in names}


def _get(names: Sequence[Any], value: Any, text: str) -> Any:
    number = value if isinstance(value, int) else int(text)
    return names[number] if number < len(names) else None


def _whole(found: dict[Any, Any], shown: Mapping[Any, str], where: str) -> dict[Any, Any]:
    for value, name in found.items():
        if name is None:
            raise InputError(f"{where}: label_names has no name for label {shown[value]!r}")
    return found


def _matched(
    shown: Mapping[Any, str], class_names: Sequence[str], names: Sequence[str] | None, where: str
) -> dict[Any, int]:
    """Classes by name: exactly, else by spelling, else by number where both sides only number their classes."""
    exact = {name: number for number, name in enumerate(class_names)}
    positions, numbers = _positions(class_names), _numbers(class_names)
    found, missing, count = {}, [], Counter(class_names)
    for value, text in shown.items():
        number = _number(text)
        if text in exact and count[text] == 1:
            found[value] = exact[text]
        elif plain_name(text) in positions:
            found[value] = positions[plain_name(text)]
        elif numbers and number in numbers:
            if names and number != value:  # folders `1`, `10`, `2`: the classes may be numbered by either
                pairs = _pairs([(text, class_names[numbers[n]]) for text in names if (n := _number(text)) in numbers])
                raise InputError(
                    f"{where}: label {value} of the data set is called '{text}', and the classes only have numbers "
                    f"({_short(class_names)}): if they are the data set's, say label_names: {IN_ORDER}, if they are "
                    f"those in its names, label_names: {pairs}"
                )
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
    name_them = "name them with class_names: [...], in the model's order, or " if are_placeholders(class_names) else ""
    matched = {shown[value]: class_names[number] for value, number in found.items()}
    taken = set(matched.values())
    left = [name for name in class_names if name not in taken]
    counted = [_number(name) for name in names or ()]
    only_count = all(isinstance(value, int) and value < len(class_names) for value in shown) if not names else (
        None not in counted and counted == sorted(counted)
    )  # fmt: skip
    numbered = not matched and only_count
    own = list(names) if names else [str(n) for n in range(len(class_names))] if numbered else list(shown.values())
    unknown = [label for label in own if label not in matched]
    if not left:
        known = f"the {len(class_names)} classes of the head ({_short(class_names)})"
        raise InputError(f"{where}: labels {_short(unknown)} are none of {known}; leave their images out")
    if len(unknown) != len(left):
        counts = f"{len(unknown)} labels and {len(left)} classes are left" if matched else (
            f"{len(own)} labels and {len(class_names)} classes"
        )  # fmt: skip
        raise InputError(f"{what}; {counts}: say with label_names which class each label is, {{LABEL: CLASS, ...}}")
    by_name = bool(matched) or any(_number(label) is None for label in unknown)
    pairs = _pairs([*_nearest(unknown, left, by_name).items(), *matched.items()])
    if numbered:
        raise InputError(
            f"{what}; if labels number the classes, {pairs}, say so with label_names: {IN_ORDER}, else with "
            "label_names: {LABEL: CLASS, ...}"
        )
    raise InputError(f"{what}; {name_them}say which class each label is, as in label_names: {pairs}, if that is right")


def _nearest(labels: Sequence[str], classes: Sequence[str], by_name: bool) -> dict[str, str]:
    """A class for each label: the one with the nearest name, or in order."""
    left, found = list(classes), {}
    ordered = labels if by_name else sorted(labels, key=lambda label: (_number(label) or 0, label))
    for label in ordered[: SHOWN + 1]:  # one more than a message shows
        near = difflib.get_close_matches(label, left, n=1, cutoff=0.0) if by_name else left[:1]
        found[label] = near[0]
        left.remove(near[0])
    return found


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    """Pairs as YAML has them."""
    shown = ", ".join(f"{_quoted(a)}: {_quoted(b)}" for a, b in pairs[:SHOWN])
    return f"{{{shown}{', ...' if len(pairs) > SHOWN else ''}}}"


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[\w./-][\w ./-]*", name) else json.dumps(name, ensure_ascii=False)


def _positions(names: Sequence[str]) -> dict[str, int]:
    """Index by plain name, of names that are told apart by it."""
    plain = [plain_name(name) for name in names]
    count = Counter(plain)
    return {name: number for number, name in enumerate(plain) if count[name] == 1}


def _numbers(names: Sequence[str]) -> dict[int, int]:
    """Index by the number that a class has for a name, where all classes have only numbers, each its own."""
    found = [_number(name) for name in names]
    return {} if None in found or len(set(found)) < len(found) else {number: n for n, number in enumerate(found)}


def _number(name: str) -> int | None:
    match = NUMBER.fullmatch(plain_name(name))
    return None if match is None else int(match[1])


def _short(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:4])) + (", ..." if len(names) > 4 else "")
