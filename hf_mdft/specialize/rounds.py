"""Rounds of phase 2: specialists replace their experts in the pool, and a new meta-model is made of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from torch import nn
from transformers import set_seed

from ..core.hashing import fingerprint
from ..core.lock import locked
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
    timed: Callable[[str], AbstractContextManager[None]],
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
        timed: Context manager around each stage, by the stage's name.

    Returns:
        For each round that was run, the specialists held after it, by task.

    Raises:
        InputError: Another run works in the folder.
    """
    with locked(Path(args.output_dir)):
        return _rounds(data, meta, args, list(tasks), next_meta, timed)


def _rounds(
    data: TaskData,
    meta: nn.Module,
    args: SpecializeArguments,
    todo: list[str],
    next_meta: Callable[[ModelPool, Mapping[str, Head], Path], nn.Module],
    timed: Callable[[str], AbstractContextManager[None]],
) -> list[dict[str, Specialist]]:
    held: dict[str, Specialist] = {}
    new: dict[str, Head] = {}
    rounds, pool = [], data.pool
    experts = {task: data.experts(task) for task in todo}  # what is wrong with one is told before any work
    for number in range(1, args.rounds + 1):
        folder = Path(args.output_dir) / f"round-{number}"
        own = copy.copy(args)
        own.output_dir = str(folder)
        found, key = {}, fingerprint(meta.state_dict())
        for task in todo:
            with timed(f"specialist {task}"):
                set_seed(args.seed)
                head, given = new.get(task) or data.head(task), experts[task]
                if task in new:
                    given = TaskExperts(task, pool, {task: head}, teachers=given.teachers)
                made = specialize_task(task, pool, meta, head, data.unlabelled(task), own, key, given)
                if task in new:  # what was found of the experts that the user gave
                    before = held[task].trust
                    made = replace(made, trust=replace(before, start="specialist of the round before"))
                found[task] = made
        held |= {task: made for task, made in found.items() if made.improved or task not in held}
        rounds.append(dict(held))
        todo = [task for task, made in found.items() if made.improved]
        if not todo or number == args.rounds:
            break
        pool = pool.with_experts({task: found[task].chosen for task in todo})
        new |= {task: found[task].head for task in todo}
        meta = next_meta(pool, new, folder.with_name(f"{folder.name}-{NEXT_META}"))
    return rounds
