"""Where the gains of phase 2 come from: its parts added one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..embedding.views import TEACHER_VIEWS, TEST_VIEWS, Offset
from ..evaluation.outputs import look
from ..recipes.schema import Recipe
from ..specialize import SpecializeArguments
from .ablation import Row, Variants, without_effect
from .outcome import measured_tasks, needs_specialists, outcome


BARE: dict[str, Any] = {
    "teacher_views": False, "prior_strength": 0.0, "lda_weight": 0.0, "ensemble_weight": 0.0, "refreshes": 0,
    "augmentation": "none", "infomax_weight": 0.0, "restore": False, "fewer_steps": False, "gate": False,
    "further_experts": False, "outside_teachers": False, "related_experts": False,
}  # fmt: skip
"""Distillation of the expert on plain images, and nothing else. Such a teacher corrects nothing, so steps stay."""

ADDED = {
    "the expert, distilled": (),
    "+ test-time augmentation": ("teacher_views",),
    "+ fewer steps where the teacher corrects little": ("fewer_steps",),
    "+ class prior": ("prior_strength",),
    "+ LDA": ("lda_weight",),
    "+ further experts of the task": ("further_experts",),
    "+ teachers from outside the pool": ("outside_teachers",),
    "+ experts of related tasks": ("related_experts",),
    "+ meta-model and base": ("ensemble_weight",),
    "+ augmentation of the student's images": ("augmentation",),
    "+ InfoMax": ("infomax_weight",),
    "+ self-training": ("refreshes",),
    "+ restored images": ("restore",),
    "+ gate": ("gate",),
}
"""By row: options that are the recipe's own from there on; a row that would change nothing is left out. The last row
is the recipe in full."""

VIEWS = {
    f"the experts over {len(TEST_VIEWS)} views": TEST_VIEWS,
    f"the experts over {len(TEACHER_VIEWS)} views": TEACHER_VIEWS,
}
"""By row: views of test-time augmentation, without any training: that of every table, and the teacher's."""

BESIDE: dict[str, dict[str, Any]] = {
    "beside it, meta-model and base in the teacher": {"ensemble_weight": 1.0},
    "beside it, self-training": {"refreshes": 1},
}
"""By row: parts that a recipe may leave off, each on top of all others but the gate."""


def gains(recipe: Recipe, output_dir: Path, progress: Callable[[str], None]) -> list[Row]:
    """Specialists with one part of phase 2 after the other; each row's difference is to the row above it.

    Rows of the experts over views, and the first of the specialists, are compared with the experts. Rows that begin
    with "beside it" add a part that the recipe leaves off to the row above them; the next row does without it.

    Args:
        recipe: Recipe with evaluation images.
        output_dir: Folder of work in progress; a study that was cut off goes on there.
        progress: Called with one line for every row.

    Raises:
        InputError: No task has evaluation images, or the recipe makes no specialists.
    """
    needs_specialists(recipe)
    merger = recipe.merger()
    tasks = [task for task in measured_tasks(merger, str(recipe.path)) if merger.pool.experts_of(task)]
    study = Variants(merger, recipe, output_dir, tasks, progress)
    before = outcome(merger, tasks, merger.expert_tower, merger.expert_head)
    rows = [Row.compare("the experts", before)]
    for name, views in VIEWS.items():
        averaged = {task: _over_views(study, task, views) for task in tasks}
        rows.append(Row.compare(name, averaged, before))
    defaults = {field.name: field.default for field in dataclasses.fields(SpecializeArguments)}
    idle = without_effect(merger)
    left = {
        name: off
        for name, off in BARE.items()
        if name not in idle and recipe.specialize.get(name, defaults[name]) != off
    }
    for name, options in ADDED.items():
        if options == ("gate",):
            for beside, change in BESIDE.items():
                if all(recipe.specialize.get(option, defaults[option]) == BARE[option] for option in change):
                    found = study.specialists(beside, {"specialize": {**left, **change}})
                    rows.append(Row.compare(beside, found, before))
        if options and not left.keys() & options:
            continue
        for option in options:
            left.pop(option, None)
        found = study.specialists(name, {"specialize": dict(left)})
        rows.append(Row.compare(name, found, before))
        before = found
    return rows


def _over_views(study: Variants, task: str, views: tuple[Offset, ...]) -> torch.Tensor:
    merger = study.merger
    data, head = merger.labelled(task), merger.expert_head(task)
    seen = look(merger.expert_tower(task), merger.pool.architecture, head, data.images, views=views, desc=task)
    return seen.classes_over_views == data.labels
