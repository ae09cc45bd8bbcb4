"""`hf-mdft bench`."""

from __future__ import annotations

import functools
from typing import Annotated, Literal

import typer

from ..core.errors import InputError
from .app import Verbose, app, prepare, progress


TINY_STEPS = 20
"""Most steps of a whole run of the size `tiny`, which is there to try the benchmark out."""

TAKEN_BY = {
    "run": "size experts tasks images_per_task images_per_micro_batch batch_size precision images classes max_steps",
    "growth": "size precision batch_size large",
    "steps": "phase size experts tasks images_per_task images_per_micro_batch batch_size precision turns baseline",
}
"""Options of each kind of measurement."""


def _given(context: typer.Context, option: str) -> bool:
    # By name: typer's click need not be the click that is installed.
    return getattr(context.get_parameter_source(option), "name", None) == "COMMANDLINE"


def _kind(context: typer.Context, run: bool, growth: bool) -> str:
    """The kind that is asked for.

    Raises:
        InputError: It does not take one of the options that were given.
    """
    if run and growth:
        raise InputError("--run and --growth are two measurements: give one of them")
    kind = "run" if run else "growth" if growth else "steps"
    taken = {kind, "verbose", *TAKEN_BY[kind].split()}
    for name in context.params:
        if name not in taken and _given(context, name):
            others = [f"--{other}" for other, names in TAKEN_BY.items() if name in names.split() and other != "steps"]
            option = f"--{name.replace('_', '-')}"
            raise InputError(
                f"{option} is an option of {' and '.join(others)}: give that too, or leave {option} out"
                if kind == "steps"
                else f"--{kind} takes no {option}: leave it out"
            )
    return kind


@app.command(epilog="Example: `hf-mdft bench --size vit-b-32 --experts 8`")
def bench(
    context: typer.Context,
    run: Annotated[bool, typer.Option("--run", help="Measure a whole run by stage instead.")] = False,
    growth: Annotated[
        bool, typer.Option("--growth", help="Measure how costs grow with experts, tasks, images and classes instead.")
    ] = False,
    phase: Annotated[Literal["both", "meta", "specialists"], typer.Option(help="What to measure.")] = "both",
    size: Annotated[
        Literal["vit-b-32", "vit-b-16", "vit-l-14", "tiny"],
        typer.Option(help="Size of the vision tower; --growth takes tiny unless it is given."),
    ] = ("vit-b-32"),
    experts: Annotated[int, typer.Option(help="Experts in the pool.")] = 8,
    tasks: Annotated[
        int | None, typer.Option(help="Tasks in a batch of the meta-model. Default: as many as experts, 8 at most.")
    ] = None,
    images_per_task: Annotated[int, typer.Option(help="Images of each task in that batch.")] = 16,
    images_per_micro_batch: Annotated[
        int | None, typer.Option(help="Images of one micro-batch; the default is fast.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images in a batch of a specialist.")] = 32,
    precision: Annotated[Literal["bf16", "fp32"], typer.Option(help="bf16: autocast.")] = "bf16",
    turns: Annotated[int, typer.Option(help="Each is four steps and four of the lower bound.")] = 2,
    baseline: Annotated[bool, typer.Option("--baseline", help="FusionBench's wrapper too, if installed.")] = False,
    images: Annotated[int, typer.Option(help="With --run: unlabelled images of each task.")] = 1000,
    classes: Annotated[int, typer.Option(help="With --run: classes of each task.")] = 100,
    max_steps: Annotated[
        int | None,
        typer.Option(help="With --run: most steps of either phase; the default is the package's, 20 for tiny."),
    ] = None,
    large: Annotated[
        bool,
        typer.Option("--large", help="With --growth: to 200 experts, 100 tasks, 100,000 images and 1,000 classes."),
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Measure what a step costs, beside its lower bound, with random weights and images.

    The lower bound of the meta-model is one forward and one backward pass of one model on the same batch; that of a
    specialist is plain fine-tuning. Each is run in turns with ours. Prints a Markdown table.

    `--run` goes through both phases from an empty cache: seconds of every stage, beside those of as many steps of the
    lower bounds. `--growth` does so with more and more of one thing, eight steps at a time: some ten minutes on two
    cores.
    """
    kind = _kind(context, run, growth)
    prepare(verbose)
    from ..bench import (
        Setting,
        as_markdown,
        growth_as_markdown,
        load_fusion_bench,
        measure_apart,
        measure_growth,
        run_as_markdown,
    )

    if baseline:
        load_fusion_bench()  # an error now rather than after the other measurements
    if kind == "growth" and not _given(context, "size"):
        size = "tiny"
    setting = Setting(
        size=size,
        experts=experts,
        tasks=min(experts, 8) if tasks is None else tasks,
        images_per_task=images_per_task,
        images_per_micro_batch=images_per_micro_batch,
        batch_size=batch_size,
        bf16=precision == "bf16",
        turns=turns,
        images=images,
        classes=classes,
        max_steps=TINY_STEPS if max_steps is None and size == "tiny" else max_steps,
    )
    apart = functools.partial(prepare, verbose)
    if kind == "run":
        progress("Measuring: a whole run")
        typer.echo(run_as_markdown(measure_apart(setting, "run", apart)))
        return
    if kind == "growth":
        points = measure_growth(setting, large, apart, lambda what: progress(f"Measuring: {what}"))
        for line in growth_as_markdown(points):  # what is measured is there, whatever becomes of the rest
            typer.echo(line)
        return
    wanted = (["meta", "specialists"] if phase == "both" else [phase]) + (["baseline"] if baseline else [])
    costs = []
    for name in wanted:
        progress(f"Measuring: {name}")
        costs.append(measure_apart(setting, name, apart))
    typer.echo(as_markdown(costs))
