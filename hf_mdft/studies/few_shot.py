"""What few unlabelled images give."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..merger import MetaMerger
from ..recipes.recipe import Recipe
from .ablation import Row
from .outcome import (
    measured_tasks,
    meta_outcome,
    needs_specialists,
    outcome,
    pack,
    remembered,
    specialist_outcome,
    unpack,
)


def few_shot(
    recipe: Recipe, images: Sequence[int | None], output_dir: Path, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Run the recipe with so many unlabelled images per task, in both phases, and measure.

    Args:
        recipe: With evaluation images, and an expert for every task that has them.
        images: Images per task; `None` is all.
        output_dir: Of work in progress; a study that was cut off goes on there.
        say: Tells the user what happens.

    Returns:
        For each number of images: `images`; rows `meta`, `specialist_ungated` and `specialist`, each compared with the
        experts; `gate` and `comparison` by task, as in the results of a run.

    Raises:
        InputError: No task has evaluation images and an expert, or the recipe makes no specialists.
    """
    needs_specialists(recipe)
    merger = recipe.merger()
    tasks = [task for task in measured_tasks(merger, str(recipe.path)) if task in merger.pool.experts]
    if not tasks:
        raise InputError(f"{recipe.path}: no task with evaluation images has an expert to compare with")
    experts = outcome(merger, tasks, merger.pool.tower)
    table = []
    for count in images:
        say(f"{count or 'All'} unlabelled images per task")
        folder = output_dir / f"images-{count or 'all'}"

        def make(count=count, folder=folder) -> dict[str, Any]:
            few = merger.variant()
            few.restrict(count)
            few.fit(recipe.meta_arguments(folder))
            few.specialize(recipe.specialize_arguments(folder), tasks)
            return {
                "meta": pack(meta_outcome(few, tasks)),
                "specialist_ungated": pack(specialist_outcome(few, tasks, gated=False)),
                "specialist": pack(specialist_outcome(few, tasks)),
                "gate": {task: few.specialists[task].decision.to_dict() for task in tasks},
            }

        key = ["few shot 2", count, _key(merger, recipe)]
        found = remembered(folder / "outcome.json", key, make)
        rows = {name: Row.compare(name, unpack(found[name]), experts) for name in found if name != "gate"}
        ungated, theirs = rows["specialist_ungated"].by_task, Row.compare("expert", experts).by_task
        comparison = {task: {"difference": ungated[task] - theirs[task]} for task in tasks}
        table.append({"images": count, **rows, "gate": found["gate"], "comparison": comparison})
    return table


def _key(merger: MetaMerger, recipe: Recipe) -> list[Any]:
    images = {task: merger.unlabelled(task).key for task in merger.tasks}
    return [merger.pool.reference(), images, recipe.adapter, recipe.meta, recipe.specialize, recipe.seed]


def as_lines(table: list[dict[str, Any]]) -> list[list[str]]:
    """Cells of the table: accuracy in percent, difference to the experts and interval in points."""
    lines = []
    for entry in table:
        meta, ungated, kept = (entry[name] for name in ("meta", "specialist_ungated", "specialist"))
        lines.append(
            [
                str(entry["images"] or "all"),
                f"{100 * meta.average:.1f}",
                f"{100 * ungated.average:.1f}",
                f"{100 * kept.average:.1f}",
                f"{100 * kept.difference:+.2f}",
                f"{100 * kept.low:+.2f} to {100 * kept.high:+.2f}",
                f"{kept.p_value:.2g}",
            ]
        )
    return lines


HEADER = ("images per task", "meta-model", "specialists, no gate", "specialists", "over experts", "95 % interval", "p")


def as_facts(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """JSON-able."""
    return [
        {name: dataclasses.asdict(value) if isinstance(value, Row) else value for name, value in entry.items()}
        for entry in table
    ]
