"""`hf-mdft bench`."""

from __future__ import annotations

import functools
from typing import Annotated, Literal

import typer

from .app import Verbose, app, prepare, progress


@app.command(epilog="Example: `hf-mdft bench --size vit-b-32 --experts 8`")
def bench(
    phase: Annotated[Literal["both", "meta", "specialists"], typer.Option(help="What to measure.")] = "both",
    size: Annotated[
        Literal["vit-b-32", "vit-b-16", "vit-l-14", "tiny"], typer.Option(help="Size of the vision tower.")
    ] = ("vit-b-32"),
    experts: Annotated[int, typer.Option(help="Experts in the pool.")] = 8,
    tasks: Annotated[int, typer.Option(help="Tasks in a batch of the meta-model.")] = 8,
    images_per_task: Annotated[int, typer.Option(help="Images of each task in that batch.")] = 16,
    images_per_micro_batch: Annotated[
        int | None, typer.Option(help="Images of one micro-batch; the default is fast.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images in a batch of a specialist.")] = 64,
    precision: Annotated[Literal["bf16", "fp32"], typer.Option(help="bf16: autocast.")] = "bf16",
    turns: Annotated[int, typer.Option(help="Each is four steps and four of the lower bound.")] = 2,
    baseline: Annotated[bool, typer.Option("--baseline", help="FusionBench's wrapper too, if installed.")] = False,
    verbose: Verbose = False,
) -> None:
    """Measure what a step costs, beside its lower bound, with random weights and images.

    The lower bound of the meta-model is one forward and one backward pass of one model on the same batch; that of a
    specialist is plain fine-tuning. Each is run in turns with ours. Prints a Markdown table.
    """
    prepare(verbose)
    from ..bench import Setting, as_markdown, load_fusion_bench, measure_apart

    if baseline:
        load_fusion_bench()  # an error now rather than after the other measurements
    setting = Setting(
        size=size,
        experts=experts,
        tasks=tasks,
        images_per_task=images_per_task,
        images_per_micro_batch=images_per_micro_batch,
        batch_size=batch_size,
        bf16=precision == "bf16",
        turns=turns,
    )
    wanted = (["meta", "specialists"] if phase == "both" else [phase]) + (["baseline"] if baseline else [])
    costs = []
    for name in wanted:
        progress(f"Measuring: {name}")
        costs.append(measure_apart(setting, name, functools.partial(prepare, verbose)))
    typer.echo(as_markdown(costs))
