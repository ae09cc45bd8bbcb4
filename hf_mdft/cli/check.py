"""`hf-mdft check`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from .app import AllowBaseMismatch, RecipeFile, Token, Verbose, app, prepare, progress


def listener(lines: list[str]) -> logging.Handler:
    """Adds every warning to a list, once."""
    handler = logging.Handler(logging.WARNING)

    def emit(record: logging.LogRecord) -> None:
        if (line := record.getMessage()) not in lines:
            lines.append(line)

    handler.emit = emit
    return handler


@app.command(epilog="Example: `hf-mdft check recipe.yaml --page check.html`")
def check(
    recipe: RecipeFile,
    output_dir: Annotated[Path, typer.Option(help="Folder that the run will write.")] = Path("mdft-output"),
    page: Annotated[Path, typer.Option(help="Where the page with pictures goes.")] = Path("check.html"),
    allow_base_mismatch: AllowBaseMismatch = False,
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Check everything that a run needs, in a minute or so, and train nothing.

    Models (headers, then what they compute, against plain transformers), every task's images, labels and heads, disk
    and output folder. Shows one table, what the run will cost, and writes a page with pictures as the models see them.
    `run` does the same first, but for the page.
    """
    prepare(verbose, token)
    from ..artifacts.check_page import write_check
    from ..artifacts.layout import CHECKPOINTS
    from ..artifacts.run_folder import refuse_foreign_output, refuse_inputs_within
    from ..cards import inputs_text
    from ..recipes.preflight import check_heads, check_options, check_space, contact_sheet, estimate
    from ..recipes.schema import Recipe

    notes: list[str] = []
    logging.getLogger("hf_mdft").addHandler(listener(notes))
    loaded, work = Recipe.load(recipe, allow_base_mismatch=allow_base_mismatch), output_dir / CHECKPOINTS
    meta, specialize = loaded.meta_arguments(work), loaded.specialize_arguments(work)
    merger = loaded.merger()
    refuse_foreign_output(output_dir, list(merger.tasks))
    refuse_inputs_within(output_dir, merger.local_inputs())
    check_options(meta, specialize)
    check_heads(merger, specialize)
    inputs = merger.inputs()
    typer.echo(inputs_text(inputs))
    cost = estimate(merger, inputs, meta, specialize)
    check_space(cost, output_dir)
    typer.echo(f"\n{cost}")
    write_check(page, inputs, str(cost), contact_sheet(merger), notes)
    progress(f"Pictures as the models see them: {page}")
