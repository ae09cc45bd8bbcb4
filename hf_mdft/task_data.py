"""A pool with its tasks: heads and images, each made once."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from torch import nn
from transformers.trainer_utils import IntervalStrategy

from .cards import TaskInputs
from .core.data_reference import DataReference
from .core.device import best_device
from .core.errors import InputError, known, suggest
from .core.reference import several
from .core.typed import expect
from .experts import TaskExperts, related_experts
from .heads import Head, build_expert_heads, build_head
from .pool import ModelPool
from .pool.parity import parity
from .pool.processors import check_processors, processor_of
from .tasks import Images, LabelledImages, Preprocessor, Task, read_labelled, read_unlabelled
from .tasks.reading import BadPictures
from .teachers import OutsideTeacher, outside_teachers


class TaskData:
    """What all stages need of the tasks.

    Args:
        pool: Base and experts.
        tasks: Tasks by the names of the pool's experts; a task without an expert is adapted to as well.
        seed: Seed of every random choice.

    Raises:
        InputError: A task has no entry in the pool.
    """

    def __init__(self, pool: ModelPool, tasks: Mapping[str, Task], seed: int = 0) -> None:
        expect(pool, ModelPool, "pool")
        for task, own in expect(tasks, Mapping, "tasks").items():
            expect(own, Task, f"tasks['{task}']")
            if task not in pool.tasks:
                raise InputError(f"task '{task}' is not in the pool: {suggest(str(task), pool.tasks)}")
        if type(seed) is not int or not 0 <= seed < 2**32:
            raise InputError(f"seed must be a whole number from 0 to {2**32 - 1}, got {seed!r}")
        self.pool = pool
        self.tasks = dict(tasks)
        self.seed = seed
        check_processors(pool, list(self.tasks))
        self._preprocessors: dict[str, Preprocessor] = {}
        self._heads: dict[str, Head] = {}
        self._expert_heads: dict[str, dict[str, Head]] = {}
        self._images: dict[str, Images] = {}
        self._taken: dict[str, str | None] = {}
        self._teachers: dict[str, tuple[OutsideTeacher, ...]] = {}

    def named(self, tasks: Iterable[str] | str | None) -> list[str]:
        """The tasks of these names, or of one; `None` is all.

        Raises:
            InputError: There is no such task; the nearest name is suggested.
        """
        expect(tasks, (str, Iterable, NoneType), "tasks")
        names = self.tasks if tasks is None else [tasks] if isinstance(tasks, str) else tasks
        return [known(name, self.tasks, "task") for name in names]

    def arguments(self, args: Any, kind: type, method: str) -> Any:
        """A copy of a phase's arguments, or the defaults with this run's seed.

        Raises:
            InputError: They are of another kind, or would evaluate while training.
        """
        given = copy.copy(expect(args, (kind, NoneType), f"args of {method}()")) or kind(seed=self.seed)
        evaluates = {"eval_strategy": given.eval_strategy != IntervalStrategy.NO, "eval_on_start": given.eval_on_start}
        for name in (name for name, is_on in evaluates.items() if is_on):
            raise InputError(f"args of {method}(): training reads no labels; leave {name} off, call evaluate()")
        return given

    def take_from(self, other: TaskData) -> None:
        """Use another one's heads and images where it has made them."""
        self._heads = {name: other.head(name) for name in self.tasks}
        self._images = {name: images for name, images in other._images.items() if name in self.tasks}

    def restrict(self, count: int | None) -> None:
        """Use no more than `count` unlabelled images of each task from now on, chosen by the seed; `None` is all."""
        self._images = {task: self.unlabelled(task).sample(count, self.seed) for task in self.tasks}

    def learn_from(self, images: Mapping[str, Images]) -> None:
        """Use these unlabelled images, by task, from now on."""
        self._images |= images

    def head(self, task: str) -> Head:
        """The task's head, built the first time."""
        self.named([task])
        if task not in self._heads:
            self._heads[task] = build_head(task, self.tasks[task], self.pool)
        return self._heads[task].cpu()

    def heads(self) -> dict[str, Head]:
        """Heads of all tasks."""
        return {task: self.head(task) for task in self.tasks}

    def expert_heads(self, task: str) -> dict[str, Head]:
        """Head of each of the task's experts, by name: the task's, or its own classifier where there are several."""
        if task not in self._expert_heads:
            self._expert_heads[task] = build_expert_heads(task, self.tasks[task], self.pool, self.head(task))
        return {expert: head.cpu() for expert, head in self._expert_heads[task].items()}

    def experts(self, task: str, device: torch.device | str = "cpu") -> TaskExperts:
        """The task's experts with their heads, its teachers from outside the pool, and experts of other tasks that
        know some of its classes."""
        others = {}
        for other in self.tasks:
            with contextlib.suppress(InputError):  # one whose head cannot be had is told of where it is needed
                others[other] = self.expert_heads(other)
        heads, related = self.expert_heads(task), related_experts(task, self.head(task).class_names, others)
        strangers = dict(next(iter(found.items())) for other, found in others.items() if other != task and found)
        return TaskExperts(task, self.pool, heads, device, self.teachers(task), tuple(related), strangers)

    def checked(self) -> tuple[dict[str, TaskExperts], dict[str, Images], dict[str, Head]]:
        """Experts, unlabelled images and heads by task; what is wrong with one of them is told here, before any work.

        Raises:
            InputError: A model computes something else than plain transformers does; no images, or no head.
        """
        parity(self.pool)
        experts = {task: self.experts(task) for task in self.tasks}
        for teacher in (teacher for found in experts.values() for teacher in found.teachers):
            teacher.check()
        return experts, {task: self.unlabelled(task) for task in self.tasks}, self.heads()

    def inputs(self) -> dict[str, TaskInputs]:
        """What every task has: everything that can be refused about models, images and labels is refused here.

        Reads the labels of evaluation images, to match them to the classes.

        Raises:
            InputError: As in `checked()`, or evaluation images or labels cannot be read.
        """
        self.heads()  # one that cannot be had is refused before pictures are read
        bad, measured = [], {}
        for task in self.tasks:
            for read in (self.unlabelled, self.labelled):
                try:
                    measured[task] = read(task)
                except BadPictures as error:
                    bad.append(str(error))
        if bad:  # of all data sets at once, not one in each start
            raise InputError(" | ".join(bad))
        _, unlabelled, heads = self.checked()
        return {task: self._inputs(task, unlabelled[task], measured[task], heads[task]) for task in self.tasks}

    def _inputs(self, task: str, images: Images, found: LabelledImages | None, head: Head) -> TaskInputs:
        own = self.tasks[task]
        self.teachers(task)
        named = "class_names" if own.class_names else "the expert's" if head.linear() is not None else "the data set's"
        return TaskInputs(
            images=len(images),
            skipped=self.skipped().get(task, 0),
            evaluation=None if found is None else len(found.images),
            skipped_evaluation=0 if found is None else found.images.skipped,
            height=images.shape[1],
            width=images.shape[2],
            class_names=tuple(head.class_names),
            classes_from=named if own.head is None else f"head: {own.head}" if isinstance(own.head, str) else "a head",
            labels=() if found is None else found.pairs,
            experts=tuple(source.reference.shown().id for source in self.pool.by_task[task]),
            head=head.name,
            processor=processor_of(self.pool, task).reference.shown().id,
        )

    def teachers(self, task: str) -> tuple[OutsideTeacher, ...]:
        """The task's teachers from outside the pool, found and checked the first time."""
        if task not in self._teachers:
            names, token = self.head(task).class_names, self.pool.base.token
            self._teachers[task] = outside_teachers(task, self.tasks[task], names, token)
        return self._teachers[task]

    def found_teachers(self) -> dict[str, tuple[OutsideTeacher, ...]]:
        """Teachers that were asked for so far, by task that has any."""
        return {task: found for task, found in self._teachers.items() if found and task in self.tasks}

    def expert(self, task: str) -> str | None:
        """Name of the expert that one would take without labels (see `TaskExperts.chosen`), the first where there are
        no unlabelled images; `None` for a task without one."""
        self.named([task])
        if task not in self._taken:
            names = self.pool.experts_of(task)
            known = len(names) < 2 or self.tasks[task].unlabelled is None
            first = names[0] if names else None
            self._taken[task] = (
                first if known else self.experts(task, best_device()).chosen(self.unlabelled(task), title=task)
            )
        return self._taken[task]

    def expert_tower(self, task: str) -> nn.Module:
        """Tower of the expert that one would take without labels."""
        return self.pool.tower(self.expert(task))

    def expert_head(self, task: str) -> Head:
        """Head of the expert that one would take without labels."""
        return self.expert_heads(task)[self.expert(task)]

    def preprocessor(self, task: str) -> Preprocessor:
        """Image processor of the task: its experts' own where they have one, else the base's."""
        self.named([task])
        if task not in self._preprocessors:
            source = processor_of(self.pool, task)
            self._preprocessors[task] = Preprocessor.of(source.folder, str(source))
        return self._preprocessors[task]

    def unlabelled(self, task: str) -> Images:
        """The task's unlabelled images, read the first time."""
        self.named([task])
        if task not in self._images:
            self._images[task] = read_unlabelled(task, self.tasks[task], self.preprocessor(task))
        return self._images[task]

    def skipped(self) -> dict[str, int]:
        """Unlabelled images that could not be read, by task that has such."""
        # Images that are changed when they are read have none of their own.
        return {task: count for task, images in self._images.items() if (count := getattr(images, "skipped", 0))}

    def labelled(self, task: str) -> LabelledImages | None:
        """The task's evaluation images and labels, where it has any."""
        self.named([task])
        if self.tasks[task].evaluation is None:
            return None
        return read_labelled(task, self.tasks[task], self.head(task).class_names, self.preprocessor(task))

    def local_inputs(self) -> list[Path]:
        """Folders and files of this machine that models and heads are read from."""
        models = [source.folder for source in self.pool.sources() if source.reference.is_local]
        given = [spec for task in self.tasks.values() for spec in (*several(task.teachers), task.head)]
        return models + [Path(spec) for spec in given if isinstance(spec, str | Path) and Path(spec).exists()]

    def references(self, key: str, names: Iterable[str] | None = None) -> dict[str, DataReference | None]:
        """The tasks' `unlabelled` or `evaluation` images as others are shown them."""
        return {name: DataReference.of(getattr(self.tasks[name], key)) for name in names or self.tasks}
