"""Values from YAML and JSON, checked against type hints."""

from __future__ import annotations

import dataclasses
import math
import numbers
import reprlib
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import InputError, suggest


T = TypeVar("T")

NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}


def read(kind: type[T], value: Any, where: str) -> T:
    """A dataclass from what JSON or YAML holds of it, nested ones and containers included.

    Args:
        kind: The dataclass.
        value: Keys and values; a field that is left out takes its default.
        where: Names the value in messages: a file and the keys that lead to it.

    Raises:
        InputError: A key is unknown or missing, or a value does not fit its type hint.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: expected keys and values, got {_shown(value)}")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for key in value:
        if key not in fields:
            raise InputError(f"{where}: unknown key '{key}': {suggest(str(key), fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise InputError(f"{where}: '{name}' is missing")
    hints = get_type_hints(kind)
    return kind(**{name: checked(item, hints[name], f"{where}: {name}") for name, item in value.items()})


def checked(value: Any, hint: Any, where: str) -> Any:
    """The value as its type hint wants it.

    Whole numbers pass as numbers, and text that YAML should have read as a number (`1e-3`, without a point) becomes
    one; nothing else is converted.

    Args:
        value: The value, as JSON or YAML holds it.
        hint: Its type hint.
        where: Names the value in messages: a file and the keys that lead to it.

    Raises:
        InputError: It is something else.
    """
    if hint is Any or hint is dataclasses.MISSING:
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _one_of(value, arguments, where)
    if origin is Literal:
        if value in arguments and type(value) in {type(argument) for argument in arguments}:
            return value
        raise InputError(f"{where} must be one of {', '.join(map(str, arguments))}, got {_shown(value)}")
    if dataclasses.is_dataclass(hint):
        return read(hint, value, where)
    if isinstance(origin or hint, type) and issubclass(origin or hint, Mapping):
        return _mapping(value, arguments, where)
    if (
        isinstance(origin or hint, type)
        and issubclass(origin or hint, Sequence)
        and not issubclass(origin or hint, str)
    ):
        return _sequence(value, origin or hint, arguments, where)
    return _plain(value, hint, where)


def _one_of(value: Any, hints: Sequence[Any], where: str) -> Any:
    if value is None and type(None) in hints:
        return None
    # The value's own type first, so that `str | Enum` leaves text as it is and `float | int` a whole number.
    for hint in sorted(hints, key=lambda hint: hint is not type(value)):
        if hint is not type(None):
            try:
                return checked(value, hint, where)
            except InputError as error:
                refused = error
    if sum(hint is not type(None) for hint in hints) == 1:
        raise refused
    wanted = " or ".join(dict.fromkeys(_wanted(hint) for hint in hints))
    raise InputError(f"{where} must be {wanted}, got {_shown(value)}")


def _mapping(value: Any, arguments: Sequence[Any], where: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} must hold keys and values, got {_shown(value)}")
    if not arguments:
        return dict(value)
    key_hint, item_hint = arguments
    return {
        checked(key, key_hint, f"{where}: a key"): checked(item, item_hint, f"{where}.{key}")
        for key, item in value.items()
    }


def _sequence(value: Any, kind: type, arguments: Sequence[Any], where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise InputError(f"{where} must be a list, got {_shown(value)}")
    hint = arguments[0] if arguments else Any
    found = [checked(item, hint, f"{where}, item {number}") for number, item in enumerate(value, start=1)]
    return tuple(found) if issubclass(kind, tuple) else found


def _plain(value: Any, hint: Any, where: str) -> Any:
    if hint is float and isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            pass
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value) if isinstance(value, float) else value
        raise InputError(f"{where} must be a finite number, got {value}")
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        if isinstance(value, hint):
            return value
        try:
            return hint(value)
        except ValueError as error:
            known = [str(member.value) for member in hint]
            raise InputError(f"{where}: unknown {_shown(value)}: {suggest(str(value), known)}") from error
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    if not isinstance(hint, type):  # nothing to compare a plain value with
        return value
    raise InputError(f"{where} must be {_wanted(hint)}, got {_shown(value)}")


def _wanted(hint: Any) -> str:
    kind = get_origin(hint) or hint
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return "keys and values"
    if isinstance(kind, type) and issubclass(kind, list | tuple | Sequence) and kind is not str:
        return "a list"
    return NAMES.get(kind, getattr(kind, "__name__", str(kind)))


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return f"'{value[:60]}{'...' if len(value) > 60 else ''}'" if isinstance(value, str) else reprlib.repr(value)[:60]


def expect(value: Any, kinds: type | tuple[type, ...], what: str) -> Any:
    """The value, where it is of one of these kinds.

    Raises:
        InputError: It is not; the message says what was given and what is wanted.
    """
    if not isinstance(value, kinds):
        names = [kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)) if kind is not type(None)]
        given = "None" if value is None else type(value).__name__
        raise InputError(f"{what} must be {' or '.join(names)}, got {given}")
    return value


SIMPLE = {bool, int, float, str, type(None)}


def check_fields(value: Any) -> None:
    """Check a dataclass's numbers, texts and booleans against their hints, where they are not left at the default;
    numbers of numpy become plain ones.

    Raises:
        InputError: One is something else; the message names the field.
    """
    hints = get_type_hints(type(value))
    for field in dataclasses.fields(value):
        found, hint = getattr(value, field.name), hints[field.name]
        kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else [hint]
        if SIMPLE.issuperset(kinds) and found is not field.default:
            found = found.item() if isinstance(found, numbers.Number) and hasattr(found, "item") else found
            setattr(value, field.name, checked(found, hint, field.name))
