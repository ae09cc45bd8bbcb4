"""What phase 2 is given for a task: images, experts and models, as the options take them."""

from __future__ import annotations

import copy
import dataclasses

from torch import nn

from ..core.errors import InputError
from ..embedding.restoration import find_restorations
from ..experts import TaskExperts
from ..heads import Head
from ..pool import ModelPool
from ..tasks import Images
from .arguments import SpecializeArguments
from .teacher import Models


def check_head(task: str, head: Head, pool: ModelPool) -> None:
    """Whether a specialist can be written with a task's head, before anything is trained.

    Raises:
        InputError: The pool's models have classifiers, as which it cannot be written.
    """
    if pool.architecture.own_heads and head.linear() is None:
        raise InputError(f"task '{task}': its head is not linear, so no complete model can be written of a specialist")


def images_used(images: Images, args: SpecializeArguments) -> Images:
    """Those of a task's unlabelled images that phase 2 uses."""
    return images.sample(args.images, args.seed).distinct()


def as_asked(experts: TaskExperts, args: SpecializeArguments, images: Images) -> TaskExperts:
    """Those experts and teachers that the options take."""
    heads = experts.heads
    if not args.further_experts and len(heads) > 1:
        chosen = experts.chosen(images, title=experts.task)
        heads = {chosen: heads[chosen]}
    return dataclasses.replace(
        experts,
        heads=heads,
        teachers=experts.teachers if args.outside_teachers else (),
        related=experts.related if args.related_experts else (),
    )


def models_of(
    experts: TaskExperts,
    meta: nn.Module,
    head: Head,
    images: Images,
    args: SpecializeArguments,
    meta_head: Head | None = None,
) -> Models:
    """What phase 2 is given for a task, and the restorations of its images."""
    models = Models(experts, meta, head, images, meta_head)
    if not (args.restore and models.has_expert):
        return models
    title, own = f"{experts.task}: restorations", copy.deepcopy(experts.heads[models.expert])
    found = find_restorations(experts.pool, models.expert, images, own, device=args.device, desc=title)
    return dataclasses.replace(models, restorations=tuple(found))
