"""`hf-mdft study`: measure the method on a recipe with evaluation images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import InputError
from ..recipes.presets import TRAINING_FREE
from .app import RecipeFile, Token, Verbose, app, prepare, progress
from .tables import StudyDir, write_tables


commands = typer.Typer(help="Measure the method on a recipe with evaluation images.", no_args_is_help=True)
app.add_typer(commands, name="study")

BASELINES = f"a preset, or training-free {', '.join(TRAINING_FREE)}"


@commands.command(
    epilog="Example: `hf-mdft study few-shot recipe.yaml --images 16 --images 64 --images 256 --images all`"
)
def few_shot(
    recipe: RecipeFile,
    images: Annotated[list[str] | None, typer.Option(help="Images per task, or 'all'; repeat.")] = None,
    output_dir: StudyDir = Path("few-shot"),
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Measure what few unlabelled images per task give, in both phases."""
    prepare(verbose, token)
    from ..core.tables import markdown_table
    from ..recipes.schema import Recipe
    from ..studies.few_shot import HEADER, as_lines
    from ..studies.few_shot import few_shot as study

    counts = [_images(text) for text in images or ("16", "64", "256", "1000", "all")]
    table = study(Recipe.load(recipe), counts, output_dir / "work", progress)
    write_tables(output_dir, {"few-shot": markdown_table(HEADER, as_lines(table))}, table)


def _images(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 2:
        raise InputError(f"--images: give a number of at least 2, or 'all', got '{text}'")
    return int(text)


@commands.command(epilog="Example: `hf-mdft study leave-one-out recipe.yaml`")
def leave_one_out(
    recipe: RecipeFile,
    output_dir: StudyDir = Path("leave-one-out"),
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Take each task's expert away and adapt the others' to it: what a pool does for a task outside it."""
    prepare(verbose, token)
    from ..recipes.schema import Recipe
    from ..studies.ablation import as_markdown
    from ..studies.leave_one_out import leave_one_out as study

    rows = study(Recipe.load(recipe), output_dir / "work", progress)
    write_tables(output_dir, {"leave-one-out": as_markdown(list(rows.values()), by_task=True)}, rows)


@commands.command(epilog="Example: `hf-mdft study rank recipe.yaml --specialists --max-steps 300`")
def rank(
    recipe: RecipeFile,
    images: Annotated[int, typer.Option(help="Unlabelled images that experts are ordered by.", min=16)] = 300,
    specialists: Annotated[bool, typer.Option("--specialists", help="Make a student of each expert alone.")] = False,
    max_steps: Annotated[int | None, typer.Option(help="Most steps of a student; the recipe's.", min=1)] = None,
    output_dir: StudyDir = Path("rank"),
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Measure how well label-free scores (`pool rank`) order the experts of tasks that have several."""
    if max_steps is not None and not specialists:
        raise InputError("--max-steps is of the students: give --specialists too, or leave it out")
    prepare(verbose, token)
    from ..core.tables import markdown_table
    from ..recipes.schema import Recipe
    from ..studies.rank import HEADER, as_dicts, as_lines, rank_study

    options = {"images": images, "specialists": specialists, "max_steps": max_steps}
    found = rank_study(Recipe.load(recipe), output_dir, progress, **options)
    write_tables(output_dir, {"rank": markdown_table(HEADER, as_lines(found))}, as_dicts(found))


def _list_shifts(wanted: bool) -> None:
    if wanted:
        from ..shifts import SHIFTS

        for shift in SHIFTS.parts():
            typer.echo(f"{shift.name:15} {shift.__doc__} {shift.unit}: {', '.join(map(str, shift.constants))}")
        raise typer.Exit


@commands.command(
    epilog="Example: `hf-mdft study shift recipe.yaml --shift gaussian_noise --shift jpeg --severity 0 --severity 3`"
)
def shift(
    recipe: RecipeFile,
    shift: Annotated[
        list[str] | None,
        typer.Option(
            help="A shift (see --list); repeat. 'A+B': for each image one of these; 'any': one of all; 'half:A': half "
            "of the unlabelled images stay clean; 'as-is': the recipe's own images."
        ),
    ] = None,
    severity: Annotated[list[int] | None, typer.Option(help="0 (as they are) to 5; repeat.")] = None,
    baseline: Annotated[list[str] | None, typer.Option(help=f"To compare with: {BASELINES}; repeat.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Measure this task only; repeat.")] = None,
    long_tail: Annotated[
        float | None,
        typer.Option(
            help="Draw the unlabelled images so that the largest class is so many times the smallest. Reads their "
            "labels (label_column), for this alone: no training sees them. Test images stay."
        ),
    ] = None,
    names: Annotated[
        bool, typer.Option("--list", callback=_list_shifts, is_eager=True, help="Show the shifts and exit.")
    ] = False,
    output_dir: StudyDir = Path("shift"),
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Shift a recipe's unlabelled and test images, and compare experts, baselines, meta-model and specialists there
    and on the clean test images.

    The default is four shifts at severities 0, 1, 3 and 5: 13 runs. Writes `shift.md`, `shift.json` and `shift.png`.
    """
    prepare(verbose, token)
    from ..artifacts.figures import save
    from ..recipes.schema import Recipe
    from ..studies.shift import DEFAULT_SEVERITIES, DEFAULT_SHIFTS, as_tables, shift_figure, shift_study

    found = shift_study(
        Recipe.load(recipe),
        output_dir / "work",
        progress,
        shifts=shift or DEFAULT_SHIFTS,
        severities=severity or DEFAULT_SEVERITIES,
        baselines=baseline or (),
        tasks=task or (),
        long_tail=long_tail,
    )
    write_tables(output_dir, as_tables(found), found, "shift")
    if figure := shift_figure(found):
        save(figure, output_dir / "shift.png")
        progress(f"Figure: {output_dir / 'shift.png'}")


@commands.command(epilog="Example: `hf-mdft study gate A/recipe.yaml B/recipe.yaml --output-dir gate`")
def gate(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(help="Recipes; or results.json and few-shot.json files, to count.", show_default=False),
    ],
    images: Annotated[list[str] | None, typer.Option(help="Images per candidate, or 'all'; repeat.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(help="How candidates are made: own, rate, epochs, one-class, duplicates; repeat. Default: all."),
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; repeat.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Most steps of each phase.")] = None,
    output_dir: StudyDir = Path("gate"),
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Make good and bad candidates of recipes, and show which label-free scores and rules tell them apart.

    Given results of finished runs (`.json`), it counts how often the gate was right there instead, what it saved and
    what it cost.
    """
    finished = [file for file in files if file.suffix == ".json"]
    if len(finished) == len(files):
        for name in ("images", "setting", "task", "max_steps", "output_dir"):
            if getattr(context.get_parameter_source(name), "name", None) == "COMMANDLINE":
                option = f"--{name.replace('_', '-')}"
                raise InputError(
                    f"{option} is for recipes, and finished results are counted as they are: leave it out"
                )
        from ..studies.gate_record import as_text, gate_record

        typer.echo(as_text(gate_record(files)))
        return
    if finished:
        raise InputError(f"{finished[0]}: give recipes or results of finished runs, not both")
    prepare(verbose, token)
    from ..studies.gate import as_markdown, gate_study

    counts = [_images(text) for text in images or ("64", "256", "all")]
    found = gate_study(
        files, output_dir / "work", progress, images=counts, settings=setting, tasks=task, max_steps=max_steps
    )
    write_tables(output_dir, as_markdown(found), found, "gate")


@commands.command(epilog="Example: `hf-mdft study hostile recipe.yaml --task mnist --seed 0 --seed 1`")
def hostile(
    recipe: RecipeFile,
    kind: Annotated[list[str] | None, typer.Option(help="Only this kind of set; repeat.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; repeat.")] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(min=0, max=2**32 - 1, help="Seed of set and training; repeat. Default: 0, 1, 2."),
    ] = None,
    max_steps: Annotated[int, typer.Option(min=1, help="Most steps of each phase.")] = 100,
    output_dir: StudyDir = Path("hostile"),
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Make specialists from sets that teach nothing (copies, one class, noise, another task's images, ...) or from
    broken experts, and measure what the gate keeps: it should never be more than a point below the expert.
    """
    prepare(verbose, token)
    from ..recipes.schema import Recipe
    from ..studies.hostile import as_markdown, hostile_study

    seeds = seed or [0, 1, 2]
    options = {"kinds": kind, "tasks": task, "seeds": seeds, "max_steps": max_steps}
    rows = hostile_study(Recipe.load(recipe), output_dir / "work", progress, **options)
    write_tables(output_dir, as_markdown(rows), rows, "hostile")


@commands.command("time", epilog="Example: `hf-mdft study time recipe.yaml --baseline symerge`")
def time_to_quality(
    recipe: RecipeFile,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="A preset that makes a meta-model; repeat. Default: symerge, adamerging."),
    ] = None,
    output_dir: StudyDir = Path("time"),
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Measure in how many seconds phase 1 reaches the accuracy that baselines end with, beside the seconds they take.

    Measuring and reading images count for nobody; task vectors and outputs of experts for each that needs them.
    """
    prepare(verbose, token)
    from ..core.tables import markdown_table
    from ..recipes.schema import Recipe
    from ..studies.time_to_quality import BASELINES, HEADER, as_lines, passed
    from ..studies.time_to_quality import time_to_quality as study

    found = study(Recipe.load(recipe), baseline or BASELINES, output_dir / "work", progress)
    tables = {kind: markdown_table(HEADER, as_lines(found, kind)) for kind in ("clock", "processor")}
    write_tables(output_dir, tables, {"looks": found, "passed": passed(found)}, "time")


def _list_choices(wanted: bool) -> None:
    if wanted:
        from ..studies.teacher.choices import CHOICES, present

        for choice, values in CHOICES.items():
            default = [value for value, own in values.items() if all(present(n) == v for n, v in own.items())]
            typer.echo(f"{choice:20} {', '.join(values):36} default {', '.join(default)}")
        raise typer.Exit


@commands.command(epilog="Example: `hf-mdft study teacher A/recipe.yaml B/recipe.yaml --choice lda --choice prior`")
def teacher(
    recipes: Annotated[list[Path], typer.Argument(help="Recipes with evaluation images.", show_default=False)],
    choice: Annotated[list[str] | None, typer.Option(help="Only this choice (see --list); repeat.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; repeat.")] = None,
    names: Annotated[
        bool, typer.Option("--list", callback=_list_choices, is_eager=True, help="Show choices and values, and exit.")
    ] = False,
    output_dir: StudyDir = Path("teacher"),
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Measure what each default of the teacher is worth before any training: other values of options and of internal
    constants, and the value that one would choose on the other tasks.

    The teacher is made from the evaluation images, as if they were the unlabelled ones. Nothing is trained, but for
    the meta-model where a value needs it (other-models).
    """
    prepare(verbose, token)
    from ..studies.teacher import as_markdown, teacher_study

    rows = teacher_study(recipes, output_dir / "work", progress, choices=choice, tasks=task)
    write_tables(output_dir, as_markdown(rows), rows, "teacher")
