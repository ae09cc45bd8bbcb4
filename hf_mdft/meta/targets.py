"""What the meta-model distils from, for each task."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping

from accelerate import PartialState

from ..core.processes import alone, own_share
from ..embedding import expert_features
from ..embedding.restoration import find_restorations
from ..embedding.views import FEW_VIEWS
from ..experts import TaskExperts, observe
from ..heads import Head, LinearHead, build_expert_heads
from ..pool import ModelPool
from ..restorations import restored
from ..tasks import Images, Task
from .arguments import MdftTrainingArguments
from .objective import TaskObjective


def experts_of(task: str, head: Head, pool: ModelPool) -> TaskExperts:
    """The pool's experts of a task with its head; several with linear heads have their own classifiers."""
    described = Task(None, class_names=head.class_names, head="linear" if isinstance(head, LinearHead) else head)
    return TaskExperts(task, pool, build_expert_heads(task, described, pool, head))


def task_objectives(
    experts: Mapping[str, TaskExperts],
    heads: Mapping[str, Head],
    images: Mapping[str, Images],
    args: MdftTrainingArguments,
) -> dict[str, TaskObjective]:
    """Objectives by task. Of several processes each runs the models of some of the tasks, whose outputs are kept; then
    all read them."""
    if PartialState().num_processes > 1:
        mine = own_share({task: len(found) for task, found in images.items()})
        with alone():
            for task in mine:
                task_objective(experts[task], heads[task], images[task], args)
        PartialState().wait_for_everyone()
    return {task: task_objective(experts[task], heads[task], found, args) for task, found in images.items()}


def task_objective(experts: TaskExperts, head: Head, images: Images, args: MdftTrainingArguments) -> TaskObjective:
    """The objective of a task: distillation from its expert, or from the ensemble of several and of teachers from
    outside the pool; from the base, for a task without an expert.

    Args:
        experts: The task's experts, with their heads, and teachers.
        head: Head of the task.
        images: Unlabelled images of the task.
        args: Options of phase 1.
    """
    pool, task, device, head = experts.pool, experts.task, args.device, head.cpu()
    views = FEW_VIEWS if args.distillation_views else FEW_VIEWS[:1]
    if not experts.heads:
        # It keeps its head: there is nothing better to train it on.
        features = expert_features(pool, None, images, views=views, device=device, desc=f"Base on {task}")
        return TaskObjective.build(head, observe(features, head), args, trained=False)
    experts, given = dataclasses.replace(experts, device=device, related=()), images
    if args.restore:
        chosen, title = experts.chosen(images, title=task), f"{task}: restorations"
        own = copy.deepcopy(experts.heads[chosen])
        images = restored(images, find_restorations(pool, chosen, images, own, device=device, desc=title))
    together = experts.ensemble(images, views, as_they_are=given, title=task)
    return TaskObjective.build(head, together, args, trained=args.train_heads)
