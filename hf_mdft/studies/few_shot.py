"""What few unlabelled images give."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..merger import MetaMerger
from ..recipes.schema import Recipe
from .ablation import Row
from .outcome import (
    inputs_key,
    measured_tasks,
    meta_outcome,
    needs_specialists,
    outcome,
    pack,
    remembered,
    specialist_outcome,
    unpack,
)


KEY_VERSION = "few-shot 6"
"""Changes with the code of this study, so that nothing that older code found is used."""

HEADER = ("images per task", "meta-model", "specialists, no gate", "specialists", "over experts", "95 % interval", "p")


@dataclass(frozen=True)
class FewShot:
    """Results with one number of images.

    Args:
        images: Unlabelled images per task; `None` is all.
        meta, specialist_ungated, specialist: The models, each compared with the experts.
        gate: The gate's decision by task, as in the results of a run.
        comparison: `difference` of specialist (without the gate) and expert by task, as in the results of a run.
    """

    images: int | None
    meta: Row
    specialist_ungated: Row
    specialist: Row
    gate: dict[str, dict[str, Any]]
    comparison: dict[str, dict[str, float]]


def few_shot(
    recipe: Recipe, images: Sequence[int | None], output_dir: Path, progress: Callable[[str], None]
) -> list[FewShot]:
    """Run the recipe with so many unlabelled images per task, in both phases, and measure.

    Args:
        recipe: Recipe with evaluation images, and an expert for every task that has them.
        images: Numbers of images per task; `None` is all.
        output_dir: Folder of work in progress; a study that was cut off goes on there.
        progress: Called with one line for every number of images.

    Returns:
        Results in the order of `images`.

    Raises:
        InputError: No task has evaluation images and an expert, or the recipe makes no specialists.
    """
    needs_specialists(recipe)
    merger = recipe.merger()
    tasks = [task for task in measured_tasks(merger, str(recipe.path)) if merger.pool.experts_of(task)]
    if not tasks:
        raise InputError(f"{recipe.path}: no task with evaluation images has an expert to compare with")
    experts = outcome(merger, tasks, merger.expert_tower, merger.expert_head)
    by_task = Row.compare("expert", experts).by_task
    table, largest = [], max(len(merger.unlabelled(task)) for task in merger.tasks)
    counts = [count if count is None or count < largest else None for count in images]
    for count in dict.fromkeys(counts):
        progress(f"{count or 'All'} unlabelled images per task")
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
                "gate": {task: dataclasses.asdict(few.specialists[task].decision) for task in tasks},
            }

        found = remembered(folder / "outcome.json", [KEY_VERSION, count, _key(merger, recipe, tasks)], make)
        rows = {
            name: Row.compare(name, unpack(found[name]), experts)
            for name in ("meta", "specialist_ungated", "specialist")
        }
        ungated = rows["specialist_ungated"].by_task
        comparison = {task: {"difference": ungated[task] - by_task[task]} for task in tasks}
        table.append(FewShot(count, **rows, gate=found["gate"], comparison=comparison))
    return table


def _key(merger: MetaMerger, recipe: Recipe, tasks: list[str]) -> list[Any]:
    data = inputs_key(merger, tasks)
    return [merger.pool.reference(), data, recipe.adapter, recipe.meta, recipe.specialize, recipe.seed]


def as_lines(table: Sequence[FewShot]) -> list[list[str]]:
    """Cells of the table: accuracy in percent, difference to the experts and interval in points."""
    return [
        [
            str(entry.images or "all"),
            f"{100 * entry.meta.average:.1f}",
            f"{100 * entry.specialist_ungated.average:.1f}",
            f"{100 * entry.specialist.average:.1f}",
            f"{100 * entry.specialist.difference:+.2f}",
            f"{100 * entry.specialist.low:+.2f} to {100 * entry.specialist.high:+.2f}",
            f"{entry.specialist.p_value:.2g}",
        ]
        for entry in table
    ]
