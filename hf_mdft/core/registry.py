"""A table of named parts: transforms, filters, heads, architectures."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, get_type_hints

from .errors import InputError, suggest
from .typed import checked


T = TypeVar("T")


class Registry(Generic[T]):
    """Parts by name. A name survives JSON and YAML, a live object does not, so configs hold names.

    Args:
        kind: What the parts are; used in error messages.

    Example:

        >>> TRANSFORMS.build({"name": "trim", "density": 0.2})
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._parts: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files a part under `name` and writes the name on it."""

        def file(part: T) -> T:
            if name in self._parts:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            part.name = name
            self._parts[name] = part
            return part

        return file

    def names(self) -> list[str]:
        """Names of all parts, sorted."""
        return sorted(self._parts)

    def parts(self) -> list[T]:
        """All parts, in the order of their registration."""
        return list(self._parts.values())

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def get(self, name: str) -> T:
        """The part called `name`.

        Raises:
            InputError: No such part; the nearest name is suggested.
        """
        if name not in self._parts:
            raise InputError(f"unknown {self.kind} '{name}': {suggest(str(name), self._parts)}")
        return self._parts[name]

    def build(self, spec: str | Mapping[str, Any]) -> Any:
        """Instance from `"name"` or `{"name": ..., **options}`.

        Raises:
            InputError: Unknown name or option, or a value that the part refuses.
        """
        options = {"name": spec} if isinstance(spec, str) else dict(spec)
        if "name" not in options:
            raise InputError(f"{self.kind} {dict(spec)} has no 'name': {suggest('', self._parts)}")
        part = self.get(options.pop("name"))
        known = [p for p in inspect.signature(part).parameters]
        try:
            hints = get_type_hints(part if dataclasses.is_dataclass(part) else part.__init__)
        except NameError:  # a name that only type checkers import
            hints = {}
        for option, value in options.items():
            if option not in known:
                raise InputError(f"{self.kind} '{part.name}' has no option '{option}': {suggest(option, known)}")
            options[option] = checked(value, hints.get(option, Any), f"{self.kind} '{part.name}': {option}")
        return part(**options)
