"""Where a student starts, for a task with several experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial

import torch
from accelerate.utils import broadcast_object_list

from ..embedding.views import FEW_VIEWS
from ..experts import WAYS, average_model, learned_average, observe
from ..heads import Head
from .teacher import Models, Teacher


IMAGES = 1000
"""Images on which starts are compared, or half of them where there are fewer than twice as many: coefficients are
learned on the others."""

LEARNED = "learned coefficients of the experts"
"""Name of the start whose coefficients are learned for the task."""


@dataclass(frozen=True)
class Start:
    """Weights that a student may start from.

    Args:
        name: What they are, in words.
        state: State of the tower.
        head: Head that they go with.
    """

    name: str
    state: Mapping[str, torch.Tensor]
    head: Head


def find_start(
    models: Models, teacher: Teacher, trusted: Mapping[str, float], *, seed: int = 0, at_once: int = 64
) -> Start:
    """The meta-model for a task without an expert, a sole expert; of several experts the one, their weighted average,
    their Model Stock or coefficients learned for this task, whichever predicts the teacher's class for the largest
    share of images (as EnsV chooses among models, Hu et al. 2024, "Towards Reliable Model Selection for Unsupervised
    Domain Adaptation").

    Args:
        models: The models of the task.
        teacher: Soft targets of the images.
        trusted: How far each expert is trusted, by name.
        seed: Order of the images that coefficients are learned on.
        at_once: Images of one forward and backward pass.
    """
    if len(models.experts.heads) < 2:
        return unchanged(models)
    count = len(models.images)
    rows = torch.linspace(0, count - 1, max(1, min(IMAGES, count // 2))).round().long()
    images, wanted = models.images.subset(rows.tolist()), teacher.probabilities.argmax(dim=-1)[rows]
    others = torch.ones(count, dtype=torch.bool).index_fill(0, rows, False).nonzero().squeeze(-1)
    options = {"seed": seed, "at_once": at_once}
    learn = cache(partial(_learned, models, teacher, trusted, others if len(others) else rows, options))
    tower, agreement, candidates = models.pool.tower(), {}, _candidates(models, trusted, learn)
    for name, make in candidates.items():
        start = make()
        tower.load_state_dict(start.state)
        seen = observe(models.embed(tower, f"start at {name}", FEW_VIEWS[:1], images), start.head)
        agreement[name] = (seen.predictions == wanted).double().mean().item()
    # The first process decides for all: another one's outputs could differ in the last bit.
    (best,) = broadcast_object_list([max(agreement, key=agreement.__getitem__)])
    return candidates[best]()


def unchanged(models: Models) -> Start:
    """What a specialist is compared with: the expert, or the meta-model for a task without one."""
    if not models.has_expert:
        return Start("meta-model", models.meta.state_dict(), models.head)
    return _expert(models, models.expert)


def _candidates(
    models: Models, trusted: Mapping[str, float], learn: Callable[[], Start]
) -> dict[str, Callable[[], Start]]:
    """What makes each start, by name: experts that count, the chosen one first, their average, Model Stock and learned
    coefficients."""
    kept = {name: trusted[name] for name in models.experts.heads if trusted[name]} or {models.expert: 1.0}
    found: dict[str, Callable[[], Start]] = {}
    for name in sorted(kept, key=lambda name: (name != models.expert, -kept[name])):
        found[f"expert {name}"] = partial(_expert, models, name)
    if len(kept) > 1:
        found |= {name: partial(_between, models, kept, name) for name in WAYS} | {LEARNED: learn}
    return found


def _learned(
    models: Models, teacher: Teacher, trusted: Mapping[str, float], rows: torch.Tensor, options: Mapping[str, int]
) -> Start:
    shares = {name: trusted[name] for name in models.experts.heads}
    images, targets = models.images.subset(rows.tolist()), teacher.probabilities[rows]
    title = f"{models.task}: start at {LEARNED}"
    tower, head = learned_average(models.experts, shares, images, targets, title=title, **options)
    return Start(LEARNED, tower.state_dict(), head)


def _between(models: Models, kept: Mapping[str, float], name: str) -> Start:
    tower, head = average_model(models.experts, models.images, kept, WAYS[name])
    return Start(name, tower.state_dict(), head)


def expert_start(models: Models, name: str) -> str:
    """What a start at one of the task's experts is called."""
    return "expert" if len(models.experts.heads) == 1 else f"expert {name}"


def _expert(models: Models, name: str) -> Start:
    return Start(expert_start(models, name), models.pool.tower(name).state_dict(), models.experts.heads[name])
