"""`hf-mdft ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..core.errors import InputError
from .app import RecipeFile, Token, Verbose, app, prepare, progress
from .tables import StudyDir, write_tables


@app.command(epilog="Example: `hf-mdft ablate recipe.yaml --output-dir ablation`")
def ablate(
    recipe: RecipeFile,
    output_dir: StudyDir = Path("ablation"),
    phase: Annotated[
        Literal["both", "meta", "specialists", "gains"],
        typer.Option(help="What to take apart; gains: phase 2's parts added one after the other instead."),
    ] = "both",
    change: Annotated[
        list[str] | None,
        typer.Option(help="A row of your own in place of all others: specialize.max_steps=600,...; repeat."),
    ] = None,
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Take one part of the recipe out at a time, and show what each part adds, with paired intervals.

    Writes `ablation.md` and `ablation.json`; a study that was cut off goes on with the same command. It takes as many
    runs as there are parts: set `max_steps` and `images` in the recipe for a quick look.
    """
    prepare(verbose, token)
    from ..recipes.schema import Recipe
    from ..studies.ablation import META_PARTS, SPECIALIST_PARTS, as_markdown
    from ..studies.ablation import ablate as study
    from ..studies.changes import read_changes

    if phase == "gains" and change:
        raise InputError("--change makes rows of --phase meta and specialists; gains has rows of its own")
    if phase == "gains":
        from ..studies.gains import gains

        tables = {"gains": gains(Recipe.load(recipe), output_dir / "work", progress)}
        write_tables(output_dir, {name: as_markdown(rows) for name, rows in tables.items()}, tables, "gains")
        return
    phases = ("meta", "specialists") if phase == "both" else (phase,)
    changes = read_changes(change) if change else (META_PARTS, SPECIALIST_PARTS)
    tables = study(Recipe.load(recipe), output_dir / "work", phases, progress, changes)
    write_tables(output_dir, {name: as_markdown(rows) for name, rows in tables.items()}, tables, "ablation")
