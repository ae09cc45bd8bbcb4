"""Tables of studies, shown and written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from .app import progress


StudyDir = Annotated[Path, typer.Option(help="Folder of the tables; a study that was cut off goes on there.")]


def write_tables(folder: Path, tables: dict[str, str], rows: object, name: str | None = None) -> None:
    """Show tables, and write them with their rows."""
    text = "\n\n".join(f"{title}\n\n{table}" for title, table in tables.items()) if name else "".join(tables.values())
    typer.echo(text)
    folder.mkdir(parents=True, exist_ok=True)
    name = name or next(iter(tables))
    (folder / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    (folder / f"{name}.json").write_text(
        json.dumps(rows, indent=2, default=dataclasses.asdict) + "\n", encoding="utf-8"
    )
    progress(f"Table: {folder / name}.md   figures: {folder / name}.json")
