"""`hf-mdft demo`, `run` and `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import InputError
from ..recipes.presets import TRAINING_FREE, names
from .app import AllowBaseMismatch, RecipeFile, Seed, Token, Verbose, app, make_folder_of, prepare, progress, tell


PRESETS = ", ".join(names())

OutputDir = Annotated[Path, typer.Option(help="Folder of results; an interrupted run goes on there.")]


@app.command(epilog="Example: `hf-mdft demo --output-dir demo-output`")
def demo(output_dir: OutputDir = Path("demo-output"), seed: Seed = 0, verbose: Verbose = False) -> None:
    """Build a small pool on real images that ship with scikit-learn and scikit-image, and do the whole job on it.

    Needs the extra `demo` (`pip install 'hf-mdft[demo]'`) and no network.
    """
    prepare(verbose)
    from ..demo import demo_recipe

    run_recipe(demo_recipe(seed, progress), output_dir)


@app.command(epilog="Example: `hf-mdft run recipe.yaml --output-dir results`")
def run(
    recipe: RecipeFile,
    output_dir: OutputDir = Path("mdft-output"),
    preset: Annotated[str | None, typer.Option(help=f"A published method in place of ours: {PRESETS}.")] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help=f"To compare with in the same run: a preset, or training-free {', '.join(TRAINING_FREE)}; repeatable."
        ),
    ] = None,
    allow_base_mismatch: AllowBaseMismatch = False,
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Do the whole job: pool, meta-model, specialists, evaluation, results.

    With several processes: `accelerate launch --num_processes 2 -m hf_mdft run recipe.yaml`
    """
    prepare(verbose, token)
    run_recipe(recipe, output_dir, preset, baseline or [], allow_base_mismatch)


def run_recipe(
    path: Path,
    output_dir: Path,
    preset: str | None = None,
    baselines: Sequence[str] = (),
    allow_base_mismatch: bool = False,
) -> None:
    """Run a recipe, then show the table and where everything else is.

    Args:
        path: The recipe's file.
        output_dir: Folder of the results.
        preset: Name of a preset to run in place of the recipe's own options.
        baselines: Names of presets and training-free methods to compare with.
        allow_base_mismatch: Whether to take experts of another base, as the recipe's option.
    """
    from ..artifacts.layout import CHECKPOINTS, META, REPORT, RESULTS, SPECIALISTS
    from ..recipes.run import Baseline
    from ..recipes.run import run as run_all
    from ..recipes.schema import Recipe

    recipe, work = Recipe.load(path, allow_base_mismatch=allow_base_mismatch), output_dir / CHECKPOINTS
    compared = {name: Baseline.named(name, recipe, work / "baselines" / name) for name in baselines}
    if preset:
        recipe = recipe.with_preset(preset)
    meta, specialize = recipe.meta_arguments(work), recipe.specialize_arguments(work)
    merger = recipe.merger()
    report = run_all(merger, output_dir, meta, specialize, progress, compared)
    if report:
        tell(str(report))
        progress(f"\nReport: {output_dir / REPORT}   figures: {output_dir / RESULTS}")
        made = f"   specialists: {output_dir / SPECIALISTS}" if merger.specialists else ""
        progress(f"Meta-model: {output_dir / META}{made}")


@app.command(epilog="Example: `hf-mdft evaluate recipe.yaml --meta results/meta`")
def evaluate(
    recipe: RecipeFile,
    meta: Annotated[Path | None, typer.Option(help="A meta-model to evaluate too: a run's 'meta' folder.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write results.json here.")] = None,
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Measure base, experts, static merges and, if given, a meta-model on a recipe's evaluation images."""
    prepare(verbose, token)
    if output:
        make_folder_of(output)
    from ..artifacts.run_folder import refuse_foreign_results
    from ..merger import MetaMerger
    from ..recipes.schema import Recipe

    if output:
        refuse_foreign_results(output, "choose another --output")
    loaded = Recipe.load(recipe)
    merger = MetaMerger.from_pretrained(meta, tasks=loaded.tasks) if meta else loaded.merger()
    if meta and (others := loaded.pool().pinned().differences(merger.pool.pinned())):
        raise InputError(
            f"{meta}: made from another pool than that of {recipe} (not the same: {', '.join(others[:3])}); give the "
            "recipe that it was made with, models of the Hub at the same revisions"
        )
    report = merger.evaluate()
    if not report.accuracy.get("base"):
        raise InputError(f"{recipe}: no task has 'evaluation' images; there is nothing to measure")
    typer.echo(str(report))
    if output:
        report.save(output)
