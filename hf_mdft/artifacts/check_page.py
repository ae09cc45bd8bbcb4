"""`check.html`: what a run was given, and pictures as the models see them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cards import TaskInputs
from ..cards.inputs import HEADER
from ..core.errors import InputError
from ..core.pages import template


CHECK_PAGE = "check.html"
MARK = "<h1>hf_mdft check</h1>"


def write_check(
    path: Path,
    inputs: Mapping[str, TaskInputs],
    cost: str,
    sheet: Mapping[str, Sequence[Any]],
    notes: Sequence[str] = (),
) -> None:
    """Write the page; it needs no other file and no network.

    Args:
        path: The file.
        inputs: What every task was given.
        cost: What a run will cost, in words.
        sheet: Pictures by task, each with `png` and `text`.
        notes: What was warned of.

    Raises:
        InputError: It cannot be written.
    """
    page = template(Path(__file__).parent / "templates" / CHECK_PAGE, html=True).render(
        inputs=inputs, cost=cost, sheet=sheet, header=HEADER, notes=notes, base64=_base64
    )
    if path.exists() and not (path.is_file() and MARK in path.read_text(encoding="utf-8", errors="replace")):
        raise InputError(f"{path}: not written by hf_mdft; choose another --page")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
