"""Rounds of phase 2: specialists replace their experts in the pool, and a new meta-model is made of it."""

from __future__ import annotations

import copy
import logging
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn
from transformers import set_seed

from ..core.hashing import fingerprint
from ..core.lock import locked
from ..core.processes import alone, own_share
from ..core.timing import LATER_META, Timing
from ..experts import TaskExperts
from ..heads import Head
from ..pool import ModelPool
from ..task_data import TaskData
from ..trainers.diverged import Diverged
from .arguments import SpecializeArguments
from .gate import information_by_others
from .given import check_head, images_used
from .one_task import specialize_task
from .specialist import LATER_START, Specialist


logger = logging.getLogger(__name__)

NEXT_META = "next-meta"
"""End of the names of folders in which later rounds make their meta-models."""


@dataclass(frozen=True)
class MetaTower:
    """A meta-model as phase 2 asks it.

    Args:
        tower: Its tower, a plain one.
        head: Gives the head that it uses for a task.
        seconds: What making it took, where phase 2 had it made.
    """

    tower: nn.Module
    head: Callable[[str], Head]
    seconds: float = 0.0


def specialize_in_rounds(
    data: TaskData,
    meta: MetaTower,
    args: SpecializeArguments,
    tasks: Iterable[str],
    *,
    next_meta: Callable[[ModelPool, Mapping[str, Head], Path], MetaTower],
    took: Callable[[str, float], None],
) -> list[dict[str, Specialist]]:
    """Specialise tasks for up to `args.rounds` rounds.

    Only tasks whose specialist the gate chose go on to the next round; there, it is the expert. Rounds end when there
    is none.

    Args:
        data: Pool of the first round; heads, experts and images of its tasks.
        meta: The meta-model of the first round.
        args: Options of phase 2; round N works in the folder `round-N` of `args.output_dir`.
        tasks: Names of the tasks.
        next_meta: Makes the next round's meta-model from its pool and the heads of the tasks that
            specialists replaced experts of; work in progress goes to the folder that it is given.
        took: Told the name and the seconds of every stage.

    Returns:
        For each round that was run, the specialists held after it, by task.

    Raises:
        InputError: Another run works in the folder.
    """
    with locked(Path(args.output_dir)):
        return _rounds(data, meta, args, list(tasks), next_meta, took)


def _rounds(
    data: TaskData,
    meta: MetaTower,
    args: SpecializeArguments,
    todo: list[str],
    next_meta: Callable[[ModelPool, Mapping[str, Head], Path], MetaTower],
    took: Callable[[str, float], None],
) -> list[dict[str, Specialist]]:
    held: dict[str, Specialist] = {}
    new: dict[str, Head] = {}
    rounds, pool = [], data.pool
    experts = {task: data.experts(task) for task in todo}  # what is wrong with one is told before any work
    for task in todo:
        check_head(task, data.head(task), data.pool)
    asked = cache(partial(_asked, data, experts, args))
    for number in range(1, args.rounds + 1):
        folder = Path(args.output_dir) / f"round-{number}"
        own = copy.copy(args)
        own.output_dir = str(folder)
        make = partial(_specialist, data, pool, meta, fingerprint(meta.tower.state_dict()), own, experts, new, asked)
        found, seconds = _made(make, {task: len(data.unlabelled(task)) for task in todo}, folder)
        if number > 1:  # what was found of the experts that the user gave
            trusts = {task: replace(held[task].trust, start=LATER_START) for task in found}
            found = {task: replace(made, trust=trusts[task]) for task, made in found.items()}
        for task in todo:
            took(f"specialist {task}", seconds[task])
        held |= {task: made for task, made in found.items() if made.improved or task not in held}
        rounds.append(dict(held))
        todo = [task for task, made in found.items() if made.improved]
        if not todo or number == args.rounds:
            break
        pool = pool.with_experts({task: found[task].chosen for task in todo})
        new |= {task: found[task].head for task in todo}
        try:
            meta = next_meta(pool, new, folder.with_name(f"{folder.name}-{NEXT_META}"))
        except Diverged as error:  # what was made so far is none the worse
            logger.warning("no further round: the next meta-model's %s", error)
            break
        took(LATER_META, meta.seconds)
    return rounds


def _specialist(
    data: TaskData,
    pool: ModelPool,
    meta: MetaTower,
    meta_key: str,
    args: SpecializeArguments,
    experts: Mapping[str, TaskExperts],
    new: Mapping[str, Head],
    asked: Callable[[tuple[str, ...]], Mapping[str, Mapping[str, float]]],
    task: str,
    together: tuple[str, ...],
) -> Specialist:
    """One task's specialist, of those that this process makes together; its expert is the specialist of the round
    before where there is one, with its head."""
    set_seed(args.seed)
    head, given, strangers = data.head(task), experts[task], lambda: asked(together)[task]
    if task in new:
        head, strangers = new[task], None
        given = TaskExperts(task, pool, {task: head}, teachers=given.teachers)
    images, meta_head = data.unlabelled(task), meta.head(task)
    return specialize_task(task, pool, meta.tower, head, images, args, meta_key, given, strangers, meta_head)


def _asked(
    data: TaskData, experts: Mapping[str, TaskExperts], args: SpecializeArguments, tasks: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """What the experts of other tasks make of each task's images, each loaded once for all of the tasks."""
    images = {task: images_used(data.unlabelled(task), args) for task in tasks}
    desc = "Experts on images of other tasks"
    return information_by_others({task: experts[task] for task in tasks}, images, args.device, desc=desc)


def _made(
    make: Callable[[str, tuple[str, ...]], Specialist], sizes: Mapping[str, int], folder: Path
) -> tuple[dict[str, Specialist], dict[str, float]]:
    """Specialists and the seconds that they took, by task. Tasks are independent: several processes make several of
    them side by side, each alone, and read each other's; one task they train together.

    Args:
        make: Makes the specialist of a task, or reads the one that its folder holds; is told all tasks that this
            process makes.
        sizes: Number of images by task.
        folder: Folder of this round, with one for each task.
    """
    if PartialState().num_processes == 1 or len(sizes) == 1:
        return _timed(make, tuple(sizes), folder)
    mine = tuple(own_share(sizes))
    with alone():
        _, seconds = _timed(make, mine, folder)
    seconds = dict(ChainMap(*gather_object([seconds])))  # waits for all
    with alone():
        return {task: make(task, mine) for task in sizes}, seconds


def _timed(
    make: Callable[[str, tuple[str, ...]], Specialist], tasks: tuple[str, ...], folder: Path
) -> tuple[dict[str, Specialist], Timing]:
    found, seconds = {}, Timing()
    for task in tasks:
        with seconds.of_work(task, folder / task):
            found[task] = make(task, tasks)
    return found, seconds
