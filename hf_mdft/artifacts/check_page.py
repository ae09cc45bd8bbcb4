"""`check.html`: what a run was given, and pictures as the models see them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..cards import TaskInputs
from ..cards.inputs import HEADER
from ..core.errors import InputError


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
    loader = FileSystemLoader(Path(__file__).parent / "templates", encoding="utf-8")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    page = environment.get_template(CHECK_PAGE).render(
        inputs=inputs, cost=cost, sheet=sheet, header=HEADER, notes=notes
    )
    if path.exists() and not (path.is_file() and MARK in path.read_text(encoding="utf-8", errors="replace")):
        raise InputError(f"{path}: not written by hf_mdft; choose another --page")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
