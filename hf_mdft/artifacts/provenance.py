"""How a result was made, as a recipe: from the objects that made it, whether a file was there or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..adapter import MdftConfig
from ..artifacts.saving import options_of
from ..cards.cards import public_dataset
from ..heads import Head
from ..meta import MdftTrainingArguments
from ..pool import ModelPool, ModelSource
from ..specialize import SpecializeArguments
from ..tasks import Task


def recipe_of(
    pool: ModelPool,
    tasks: Mapping[str, Task],
    heads: Mapping[str, Head],
    config: MdftConfig,
    meta: MdftTrainingArguments | None,
    specialize: SpecializeArguments | None,
    seed: int,
) -> dict[str, Any]:
    """A recipe in full, with pinned revisions and every option that the result depends on."""
    recipe = {
        "pool": {
            "base": _pinned(pool.base),
            "experts": {task: _pinned(pool.experts[task]) if task in pool.experts else None for task in pool.tasks},
        },
        "tasks": {name: task_options(task, heads[name]) for name, task in tasks.items()},
        "adapter": {"granularity": config.granularity, "transform": config.transform},
    }
    if config.init_coefficient is not None:
        recipe["adapter"]["init_coefficient"] = config.init_coefficient
    if meta is not None:
        recipe["meta"] = options_of(meta)
    if specialize is not None:
        recipe["specialize"] = options_of(specialize)
    return {**recipe, "seed": seed}


def task_options(task: Task, head: Head) -> dict[str, Any]:
    """A task as recipes write it; images that were given as an object are named as such."""
    defaults = {field.name: field.default for field in dataclasses.fields(Task)}
    options = {"unlabelled": dataset_options(task.unlabelled), "evaluation": dataset_options(task.evaluation)}
    options["class_names"] = head.class_names
    for name in ("image_column", "label_column", "templates"):
        if getattr(task, name) != defaults[name]:
            options[name] = getattr(task, name)
    if task.head is not None:
        options["head"] = task.head if isinstance(task.head, str) else f"a {task.head.name} head in memory"
    return {name: value for name, value in options.items() if value is not None}


def dataset_options(spec: Any) -> dict[str, Any] | str | None:
    """Arguments of `load_dataset`; or, for an object, how many images it holds."""
    if spec is None or isinstance(spec, str):
        return spec
    if isinstance(spec, Mapping):
        return public_dataset(spec)
    return f"{len(spec)} images in memory"


def _pinned(source: ModelSource) -> str:
    """A folder is named alone: what pins it is in the pool's reference."""
    return source.id if source.is_local else f"{source.id}@{source.revision}"
