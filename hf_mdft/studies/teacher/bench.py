"""Accuracy of one recipe's teacher under a setting."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection
from functools import cache, cached_property
from pathlib import Path

import torch
from torch import nn

from ...experts import TaskExperts
from ...merger import MetaMerger
from ...recipes.schema import Recipe
from ...specialize import SpecializeArguments
from ...specialize.given import as_asked, models_of
from ...specialize.teacher import build_teacher, observe_sources
from ...trainers import arguments_key
from ..hostile.study import shuffled
from ..outcome import Outcome, inputs_key, measured_tasks, needs_specialists, pack, remembered, unpack
from .choices import Setting, constants, is_option, present, using


KEY_VERSION = "teacher 2"
"""Changes with the code of this study, so that nothing that older code found is used."""

BROKEN = "/one broken"
"""Ending of the name of a task with several experts, one of which has its classes mixed up: what weights are for."""


class Bench:
    """One recipe whose teacher is measured.

    Args:
        name: Its name in tables.
        recipe: The recipe.
        output_dir: Folder of work in progress.
    """

    def __init__(self, name: str, recipe: Recipe, output_dir: Path) -> None:
        needs_specialists(recipe)
        self.name, self.recipe, self.output_dir = name, recipe, output_dir
        self.merger: MetaMerger = recipe.merger()
        self.tasks = measured_tasks(self.merger, str(recipe.path))
        self.args: SpecializeArguments = recipe.specialize_arguments(output_dir / "no-training")
        self._inputs_key = cache(lambda task: inputs_key(self.merger, [task]))

    @cached_property
    def meta(self) -> nn.Module:
        """The recipe's meta-model, trained when it is first needed."""
        self.merger.fit(self.recipe.meta_arguments(self.output_dir / "meta"))
        return self.merger.meta_tower()

    def changed(self, setting: Setting) -> Setting:
        """What a setting changes of the recipe's own options and of the code's constants."""
        return {name: value for name, value in setting.items() if present(name, self.args) != value}

    def outcome(self, name: str, setting: Setting, tasks: Collection[str]) -> Outcome:
        """Which evaluation images the teacher classifies correctly, by recipe and task.

        Args:
            name: Name of the files that keep it.
            setting: What is changed.
            tasks: Names of the tasks that are looked at; others are passed over.
        """
        args, own, found = copy.copy(self.args), self.recipe, {}
        for option, value in setting.items():
            if is_option(option):
                setattr(args, option.partition(".")[2], value)
        changes = {constant: value for constant, value in setting.items() if not is_option(constant)}
        if not self.changed(setting):
            name = "present"
        for task in [task for task in self.tasks if task in tasks]:
            key = [KEY_VERSION, task, arguments_key(args), constants() | changes, own.adapter, own.meta, own.seed]
            key += [self.merger.pool.reference(), self._inputs_key(task)]
            file = self.output_dir / task / f"{name}.json"
            saved = remembered(file, key, lambda task=task: pack(self._measured(task, args, changes)))
            found |= {f"{self.name}/{ending}": correct for ending, correct in unpack(saved).items()}
        return found

    def _measured(self, task: str, args: SpecializeArguments, changes: Setting) -> Outcome:
        experts = self.merger.experts(task, args.device)
        needed = args.ensemble_weight > 0 or not experts.heads
        meta = self.meta if needed else self.merger.pool.tower()  # which then nothing looks at
        with using(changes):
            found = {task: self._correct(experts, meta, args)}
            if len(experts.heads) > 1:
                first = next(iter(experts.heads))
                heads = {**experts.heads, first: shuffled(experts.heads[first], args.seed)}
                found[task + BROKEN] = self._correct(dataclasses.replace(experts, heads=heads), meta, args)
        return found

    def _correct(self, experts: TaskExperts, meta: nn.Module, args: SpecializeArguments) -> torch.Tensor:
        data = self.merger.labelled(experts.task)
        asked, own = as_asked(experts, args, data.images), self.merger.meta_head(experts.task)
        models = models_of(asked, meta, self.merger.head(experts.task), data.images, args, own)
        seen = observe_sources(models, args.teacher_views, others=args.ensemble_weight > 0)
        return build_teacher(seen, args).probabilities.argmax(dim=-1).cpu() == data.labels
