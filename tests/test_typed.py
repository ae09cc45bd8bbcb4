"""Values from JSON and YAML against type hints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest

from hf_mdft import InputError
from hf_mdft.core.typed import checked, read


class Color(Enum):
    RED = "red"


@dataclass
class Inner:
    number: float


@dataclass
class Outer:
    name: str
    inner: Inner
    steps: int = 1
    switch: bool = False
    many: dict[str, Inner] = field(default_factory=dict)
    computed: int = field(default=0, init=False)


FITS = [
    (1, int, 1),
    (2.0, int, 2),
    (1, float, 1),
    ("1e-3", float, 0.001),
    ("1e-3", float | None, 0.001),
    ("1e-3", float | str, "1e-3"),
    (None, int | None, None),
    (True, bool, True),
    ("red", Color, Color.RED),
    ("red", Color | str, "red"),
    ("a", Literal["a", "b"], "a"),
    ("x/y", Path, Path("x/y")),
    ([1, 2], list[int], [1, 2]),
    ([1, 2.5], tuple[float, ...], (1, 2.5)),
    ([1, 2.5], Sequence[float] | None, [1, 2.5]),
    ({"a": 1}, dict[str, int], {"a": 1}),
    ({"a": 1}, dict[str, Any] | str, {"a": 1}),
    ({"number": 1}, Inner, Inner(1)),
    (object, Any, object),
]


@pytest.mark.parametrize(("value", "hint", "expected"), FITS)
def test_a_value_that_fits(value, hint, expected):
    found = checked(value, hint, "here")
    assert found == expected and type(found) is type(expected)


WRONG = [
    ("false", bool, "here must be true or false, got 'false'"),
    (1, bool, "here must be true or false, got 1"),
    (True, int, "here must be a whole number, got True"),
    (2.5, int, "here must be a whole number, got 2.5"),
    ("2", int, "here must be a whole number, got '2'"),
    (True, float, "here must be a number, got True"),
    ("fast", float, "here must be a number, got 'fast'"),
    (float("nan"), float, "here must be a finite number, got nan"),
    (float("inf"), float | None, "here must be a finite number, got inf"),
    (None, int, "here must be a whole number, got null"),
    (3, str, "here must be text, got 3"),
    (3, dict[str, Any] | str, "here must be keys and values or text, got 3"),
    (3, str | list[str], "here must be text or a list, got 3"),
    ("text", list[str], "here must be a list, got 'text'"),
    ([1, "a"], list[int], "here, item 2 must be a whole number, got 'a'"),
    ({"a": "b"}, dict[str, int], "here.a must be a whole number, got 'b'"),
    ("c", Literal["a", "b"], "here must be one of a, b, got 'c'"),
    (1, Literal[True], "here must be one of True, got 1"),
    ("rad", Color, "here: unknown 'rad': did you mean 'red'?"),
]


@pytest.mark.parametrize(("value", "hint", "message"), WRONG)
def test_a_value_that_does_not_fit(value, hint, message):
    with pytest.raises(InputError) as refused:
        checked(value, hint, "here")
    assert str(refused.value) == message


def test_a_dataclass_is_read_with_what_it_holds():
    found = read(Outer, {"name": "x", "inner": {"number": "1e1"}, "many": {"a": {"number": 2}}}, "file.json")
    assert found == Outer("x", Inner(10.0), many={"a": Inner(2)})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "file.json: expected keys and values, got []"),
        ({"inner": {"number": 1}}, "file.json: 'name' is missing"),
        ({"name": "x", "iner": 1}, "file.json: unknown key 'iner': did you mean 'inner'?"),
        ({"name": "x", "inner": {}}, "file.json: inner: 'number' is missing"),
        ({"name": "x", "inner": {"number": 1}, "computed": 2}, "file.json: unknown key 'computed'"),
        ({"name": "x", "inner": {"number": 1}, "many": {"a": {"number": "b"}}}, "file.json: many.a: number must be"),
    ],
)
def test_a_dataclass_that_does_not_fit(value, message):
    with pytest.raises(InputError) as refused:
        read(Outer, value, "file.json")
    assert str(refused.value).startswith(message)
