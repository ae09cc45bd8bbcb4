"""Values as JSON files: valid JSON always, and whole or not there."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from .errors import InputError


LARGEST = 1 << 28
"""Bytes above which no file of ours is read as JSON."""


def plain(value: Any) -> Any:
    """What JSON can hold: dataclasses as keys and values (without what is left at its default), numbers that are not
    finite as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not _is_default(field, getattr(value, field.name))
        }
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Enum):
        return plain(value.value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _is_default(field: dataclasses.Field, value: Any) -> bool:
    if field.default is not dataclasses.MISSING:
        return value == field.default
    return field.default_factory is not dataclasses.MISSING and value == field.default_factory()


def write_json(path: Path, value: Any) -> None:
    """Write a value; the file is replaced as a whole."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    replace_text(path, f"{text}\n")


def replace_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    work = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        work.write_text(text, encoding="utf-8")
        work.replace(path)
    except BaseException:
        work.unlink(missing_ok=True)
        raise


def read_json(path: Path, where: str) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: It cannot be read, or is no JSON.
    """
    try:
        if not path.is_file():
            raise ValueError("no regular file" if path.exists() else "missing")
        if path.stat().st_size > LARGEST:
            raise ValueError("too large")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{where}: {path.name} is damaged ({reason}); make it again") from error
