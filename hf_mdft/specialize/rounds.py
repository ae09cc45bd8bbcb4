"""Rounds of phase 2: specialists replace their experts in the pool, and a new meta-model is made of it."""

from __future__ import annotations

import copy
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn
from transformers import set_seed

from ..core.hashing import fingerprint
from ..core.lock import locked
from ..core.processes import alone, own_share
from ..core.timing import Timing
from ..experts import TaskExperts
from ..heads import Head
from ..pool import ModelPool
from ..task_data import TaskData
from .arguments import SpecializeArguments
from .one_task import specialize_task
from .specialist import Specialist


NEXT_META = "next-meta"


def specialize_in_rounds(
    data: TaskData,
    meta: nn.Module,
    args: SpecializeArguments,
    tasks: Iterable[str],
    *,
    next_meta: Callable[[ModelPool, Mapping[str, Head], Path], nn.Module],
    took: Callable[[str, float], None],
) -> list[dict[str, Specialist]]:
    """Specialise tasks for up to `args.rounds` rounds.

    Only tasks whose specialist the gate chose go on to the next round; there, it is the expert. Rounds end when there
    is none.

    Args:
        data: Pool of the first round; heads, experts and images of its tasks.
        meta: Tower of the meta-model of the first round.
        args: Options of phase 2; round N works in the folder `round-N` of `args.output_dir`.
        tasks: Names of the tasks.
        next_meta: Makes the tower of the next round's meta-model from its pool and the heads of the tasks that
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
    meta: nn.Module,
    args: SpecializeArguments,
    todo: list[str],
    next_meta: Callable[[ModelPool, Mapping[str, Head], Path], nn.Module],
    took: Callable[[str, float], None],
) -> list[dict[str, Specialist]]:
    held: dict[str, Specialist] = {}
    new: dict[str, Head] = {}
    rounds, pool = [], data.pool
    experts = {task: data.experts(task) for task in todo}  # what is wrong with one is told before any work
    for number in range(1, args.rounds + 1):
        folder = Path(args.output_dir) / f"round-{number}"
        own = copy.copy(args)
        own.output_dir = str(folder)
        make = partial(_specialist, data, pool, meta, fingerprint(meta.state_dict()), own, experts, new)
        found, seconds = _made(make, {task: len(data.unlabelled(task)) for task in todo})
        if number > 1:  # what was found of the experts that the user gave
            trusts = {task: replace(held[task].trust, start="specialist of the round before") for task in found}
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
        meta = next_meta(pool, new, folder.with_name(f"{folder.name}-{NEXT_META}"))
    return rounds


def _specialist(
    data: TaskData,
    pool: ModelPool,
    meta: nn.Module,
    meta_key: str,
    args: SpecializeArguments,
    experts: Mapping[str, TaskExperts],
    new: Mapping[str, Head],
    task: str,
) -> Specialist:
    """One task's specialist; its expert is the specialist of the round before where there is one, with its head."""
    set_seed(args.seed)
    head, given = data.head(task), experts[task]
    if task in new:
        head, given = new[task], TaskExperts(task, pool, {task: new[task]}, teachers=given.teachers)
    return specialize_task(task, pool, meta, head, data.unlabelled(task), args, meta_key, given)


def _made(
    make: Callable[[str], Specialist], sizes: Mapping[str, int]
) -> tuple[dict[str, Specialist], dict[str, float]]:
    """Specialists and the seconds that they took, by task. Tasks are independent: several processes make several of
    them side by side, each alone, and read each other's; one task they train together.

    Args:
        make: Makes the specialist of a task, or reads the one that its folder holds.
        sizes: Number of images by task.
    """
    if PartialState().num_processes == 1 or len(sizes) == 1:
        return _timed(make, sizes)
    mine = own_share(sizes)
    with alone():
        _, seconds = _timed(make, mine)
    seconds = dict(ChainMap(*gather_object([seconds])))  # waits for all
    with alone():
        return {task: make(task) for task in sizes}, seconds


def _timed(make: Callable[[str], Specialist], tasks: Iterable[str]) -> tuple[dict[str, Specialist], Timing]:
    found, seconds = {}, Timing()
    for task in tasks:
        with seconds.of(task):
            found[task] = make(task)
    return found, seconds
