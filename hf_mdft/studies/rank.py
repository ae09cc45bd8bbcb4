"""How well label-free scores order a task's experts: by their accuracy, and by that of students of each alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from ..core.device import best_device
from ..core.errors import InputError
from ..evaluation import predict
from ..experts import TaskExperts
from ..experts.rank import SCORES, Ranked, rank
from ..merger import MetaMerger
from ..pool import ModelPool
from ..recipes.schema import Recipe
from ..specialize import specialize_task
from .outcome import inputs_key, measured_tasks, remembered


KEY_VERSION = "rank 4"
"""Changes with the code of this study, so that nothing that older code found is used."""

HEADER = (
    "score",
    "correlation with accuracy",
    "lost by its choice",
    "correlation with specialist",
    "lost by its choice",
)


@dataclass(frozen=True)
class Candidate:
    """One expert of one task.

    Args:
        task: Name of the task.
        evidence: Label-free evidence for it.
        accuracy: Its accuracy on the evaluation images, 0 to 1.
        specialist: Accuracy of a student that it alone started and taught, before the gate; `None` where it was not
            made.
    """

    task: str
    evidence: Ranked
    accuracy: float
    specialist: float | None = None


def rank_study(
    recipe: Recipe,
    output_dir: Path,
    progress: Callable[[str], None],
    *,
    images: int = 300,
    specialists: bool = False,
    max_steps: int | None = None,
) -> list[Candidate]:
    """Order every task's experts without labels, and measure them.

    Args:
        recipe: Recipe with evaluation images and several experts for some tasks.
        output_dir: Folder of work in progress; a study that was cut off goes on there.
        progress: Called with one line for every expert.
        images: Unlabelled images that they are ordered by.
        specialists: Make a student of each expert alone, too.
        max_steps: Most steps of a student; `None` is what the recipe says.

    Raises:
        InputError: No task with evaluation images has several experts.
    """
    merger = recipe.merger()
    tasks = [task for task in measured_tasks(merger, str(recipe.path)) if len(merger.pool.experts_of(task)) > 1]
    if not tasks:
        raise InputError(f"{recipe.path}: no task with evaluation images has several experts to order")
    found = []
    for task in tasks:
        experts = merger.experts(task, best_device())
        chosen = merger.unlabelled(task).distinct().sample(images, recipe.seed)
        for ranked in rank(experts, chosen, title=task):
            folder = output_dir / "work" / ranked.expert.replace("/", "-")
            key = [KEY_VERSION, ranked.expert, merger.pool.reference(), inputs_key(merger, [task])[task]]

            def accuracy(name=ranked.expert, experts=experts, task=task) -> dict[str, Any]:
                return {"accuracy": _accuracy(merger, task, merger.pool.tower(name), experts.heads[name])}

            def student(name=ranked.expert, experts=experts, task=task, folder=folder) -> dict[str, Any]:
                return {"accuracy": _student(merger, recipe, task, name, experts, folder, max_steps)}

            own = remembered(folder / "accuracy.json", key, accuracy)["accuracy"]
            taught = None
            if specialists:
                key += [recipe.specialize, recipe.seed, max_steps]
                taught = remembered(folder / "specialist.json", key, student)["accuracy"]
            found.append(Candidate(task, ranked, own, taught))
            more = "" if taught is None else f", its student {100 * taught:.1f}"
            progress(f"{ranked.expert}: trust {ranked.trust:.0%}, accuracy {100 * own:.1f}{more}")
    return found


def _accuracy(merger: MetaMerger, task: str, tower: torch.nn.Module, head: Any) -> float:
    data = merger.labelled(task)
    return (predict(tower, merger.pool.architecture, head, data.images) == data.labels).double().mean().item()


def _student(
    merger: MetaMerger,
    recipe: Recipe,
    task: str,
    name: str,
    experts: TaskExperts,
    folder: Path,
    max_steps: int | None,
) -> float:
    """A student of one expert alone; the base stands for the meta-model, which only the gate would ask."""
    head = experts.heads[name]
    pool = ModelPool(merger.pool.base, {task: merger.pool.experts[name]})
    args = recipe.specialize_arguments(folder, gate=False)
    if max_steps is not None and not 0 < args.max_steps <= max_steps:
        args = recipe.specialize_arguments(folder, gate=False, max_steps=max_steps)
    set_seed(args.seed)
    alone = TaskExperts(task, pool, {task: head})
    images = merger.unlabelled(task)
    made = specialize_task(task, pool, pool.tower(), head, images, args, experts=alone)
    return _accuracy(merger, task, made.tower(gated=False), made.candidate_head)


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation; equal values share their mean rank."""
    x, y = (_ranks(torch.tensor(values, dtype=torch.double)) for values in (a, b))
    x, y = x - x.mean(), y - y.mean()
    return (x @ y / (x.norm() * y.norm()).clamp(min=1e-12)).item()


def _ranks(values: torch.Tensor) -> torch.Tensor:
    less, equal = (values[None] < values[:, None]).sum(dim=1), (values[None] == values[:, None]).sum(dim=1)
    return less + (equal - 1) / 2


def as_lines(found: Sequence[Candidate]) -> list[list[str]]:
    """By score: mean over tasks of its rank correlation, and of the points that its first choice lies below the best;
    both for the experts' accuracy and for that of their students."""
    tasks = list(dict.fromkeys(candidate.task for candidate in found))
    lines = []
    for score in SCORES:
        cells = [score.replace("_", " ")]
        for measured in ("accuracy", "specialist"):
            correlations, lost = [], []
            for task in tasks:
                mine = [candidate for candidate in found if candidate.task == task]
                values = [getattr(candidate, measured) for candidate in mine]
                if None in values:
                    continue
                scores = [getattr(candidate.evidence, score) for candidate in mine]
                correlations.append(spearman(scores, values))
                lost.append(max(values) - values[scores.index(max(scores))])
            if correlations:
                cells += [f"{sum(correlations) / len(tasks):+.2f}", f"{100 * sum(lost) / len(tasks):.1f}"]
            else:
                cells += ["-", "-"]
        lines.append(cells)
    return lines


def as_dicts(found: Sequence[Candidate]) -> list[dict[str, Any]]:
    """JSON form."""
    return [asdict(candidate) for candidate in found]
