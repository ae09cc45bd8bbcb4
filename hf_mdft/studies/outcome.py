"""Which evaluation images a model classifies correctly: what studies compare. Reads labels."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.cache import key_of
from ..core.errors import InputError
from ..core.versions import versions
from ..evaluation import predict
from ..heads import Head
from ..merger import MetaMerger
from ..recipes.schema import Recipe


logger = logging.getLogger(__name__)

Outcome = dict[str, torch.Tensor]
"""By task: which evaluation images were classified correctly, `(N,)`."""


def inputs_key(merger: MetaMerger, tasks: list[str]) -> dict[str, list[str]]:
    """Heads, images and labels that an outcome depends on, by task; for the keys of `remembered`."""
    found = {}
    for task in merger.tasks:
        found[task] = [merger.head(task).key(), merger.unlabelled(task).key, *merger.experts(task).key()]
        if task in tasks:
            data = merger.labelled(task)
            found[task] += [data.images.key, key_of(data.labels.tolist())]
    return found


def measured_tasks(merger: MetaMerger, where: str) -> list[str]:
    """Tasks with evaluation images.

    Raises:
        InputError: There are none.
    """
    tasks = [task for task, spec in merger.tasks.items() if spec.evaluation is not None]
    if not tasks:
        raise InputError(f"{where}: no task has 'evaluation' images; there is nothing to measure")
    return tasks


def needs_specialists(recipe: Recipe) -> None:
    """Check that a recipe makes specialists.

    Raises:
        InputError: It makes none.
    """
    if recipe.specialize.get("rounds") == 0:
        raise InputError(f"{recipe.path}: specialize.rounds is 0, so there are no specialists to study; set it to 1")


def outcome(
    merger: MetaMerger,
    tasks: list[str],
    tower_of: Callable[[str], nn.Module],
    head_of: Callable[[str], Head] | None = None,
) -> Outcome:
    """What one model for each task classifies correctly.

    Args:
        merger: Pool, tasks and their images.
        tasks: Names of the tasks.
        tower_of: The vision tower for a task.
        head_of: The head for a task; the default is the task's own.
    """
    found = {}
    for task in tasks:
        data, head = merger.labelled(task), (head_of or merger.head)(task)
        found[task] = predict(tower_of(task), merger.pool.architecture, head, data.images) == data.labels
    return found


def meta_outcome(merger: MetaMerger, tasks: list[str]) -> Outcome:
    """What the meta-model classifies correctly, with the heads that go with it."""
    tower = merger.meta_tower()
    return outcome(merger, tasks, lambda _: tower, merger.meta_head)


def specialist_outcome(merger: MetaMerger, tasks: list[str], gated: bool = True) -> Outcome:
    """What the specialists classify correctly, as the gate kept them or before it."""
    made = merger.specialists

    def head(task: str) -> Head:
        return made[task].head if gated else made[task].candidate_head

    return outcome(merger, tasks, lambda task: made[task].tower(gated=gated), head)


def average(found: Mapping[str, torch.Tensor]) -> float:
    """Mean over tasks of their accuracies, 0 to 1."""
    return sum(correct.float().mean().item() for correct in found.values()) / len(found)


def remembered(file: Path, key: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Result of `make()`, from the file where it is there already: a study that was cut off goes on. A damaged file is
    made anew.

    Args:
        file: File that keeps the result.
        key: Everything that the result depends on, with the version of the code that makes it (JSON-able).
        make: Function that makes the result (JSON-able).
    """
    wanted = key_of(key, versions()["hf-mdft"])
    if file.is_file():
        saved = _read(file)
        if saved["key"] == wanted:
            return saved["found"]
    found = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    work = file.with_suffix(".part")
    work.write_text(json.dumps({"key": wanted, "found": found}), encoding="utf-8")
    work.replace(file)
    return found


def _read(file: Path) -> dict[str, Any]:
    """What `remembered` wrote; without a key, and a warning, where the file is damaged."""
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        return {"key": saved["key"], "found": saved["found"]}
    except (ValueError, KeyError, TypeError, RecursionError):  # no JSON, or JSON of something else
        logger.warning("%s is damaged; it is made anew", file)
        return {"key": None}


def pack(found: Outcome) -> dict[str, str]:
    """JSON-able form: one text of 0 and 1 for each task."""
    return {task: "".join("1" if hit else "0" for hit in correct.tolist()) for task, correct in found.items()}


def unpack(saved: Mapping[str, str]) -> Outcome:
    return {task: torch.tensor([hit == "1" for hit in text]) for task, text in saved.items()}
