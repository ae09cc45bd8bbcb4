"""Where the gains of phase 2 come from: its parts added one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..embedding import embed_views
from ..embedding.views import TEACHER_VIEWS
from ..objectives import mean_log_probs
from ..recipes.schema import Recipe
from ..specialize import SpecializeArguments
from .ablation import Row, Variants
from .outcome import measured_tasks, needs_specialists, outcome


BARE: dict[str, Any] = {
    "teacher_views": False, "prior_strength": 0.0, "lda_weight": 0.0, "ensemble_weight": 0.0, "refreshes": 0,
    "augmentation": "none", "infomax_weight": 0.0, "restore": False, "gate": False,
}  # fmt: skip
"""Distillation of the expert on plain images, and nothing else."""

ADDED = {
    "the expert, distilled": (),
    "+ test-time augmentation": ("teacher_views",),
    "+ class prior": ("prior_strength",),
    "+ LDA": ("lda_weight",),
    "+ other models": ("ensemble_weight",),
    "+ augmentation of the student's images": ("augmentation",),
    "+ InfoMax": ("infomax_weight",),
    "+ self-training": ("refreshes",),
    "+ restored images": ("restore",),
    "+ gate": ("gate",),
}
"""By row: options that are the recipe's own from there on; a row that would change nothing is left out. The last row
is the recipe in full."""


def gains(recipe: Recipe, output_dir: Path, progress: Callable[[str], None]) -> list[Row]:
    """Specialists with one part of phase 2 after the other; each row's difference is to the row above it.

    Args:
        recipe: Recipe with evaluation images.
        output_dir: Folder of work in progress; a study that was cut off goes on there.
        progress: Called with one line for every row.

    Raises:
        InputError: No task has evaluation images, or the recipe makes no specialists.
    """
    needs_specialists(recipe)
    merger = recipe.merger()
    tasks = [task for task in measured_tasks(merger, str(recipe.path)) if task in merger.pool.experts]
    study = Variants(merger, recipe, output_dir, tasks, progress)
    before = outcome(merger, tasks, merger.pool.tower)
    averaged = {task: _over_views(study, task) for task in tasks}
    rows = [Row.compare("the experts", before), Row.compare("the experts over nine views", averaged, before)]
    defaults = {field.name: field.default for field in dataclasses.fields(SpecializeArguments)}
    left = {name: off for name, off in BARE.items() if recipe.specialize.get(name, defaults[name]) != off}
    for name, options in ADDED.items():
        if options and not left.keys() & options:
            continue
        for option in options:
            left.pop(option, None)
        found = study.specialists(name, {"specialize": dict(left)})
        rows.append(Row.compare(name, found, before))
        before = found
    return rows


def _over_views(study: Variants, task: str) -> torch.Tensor:
    merger = study.merger
    data, head = merger.labelled(task), merger.head(task)
    with torch.no_grad():
        features = embed_views(merger.pool.tower(task), merger.pool.architecture, data.images, TEACHER_VIEWS)
        return mean_log_probs(head(features)).argmax(dim=-1) == data.labels
