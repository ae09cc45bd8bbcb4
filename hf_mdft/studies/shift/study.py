"""The study: models adapted to shifted images, measured on shifted and on clean ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...core.cache import key_of
from ...core.errors import InputError
from ...merger import MetaMerger
from ...recipes.run import Baseline
from ...recipes.schema import Recipe
from ...shifts import AS_IS, SEVERITIES, Target
from ...tasks import Images, LabelledImages
from ..outcome import measured_tasks, needs_specialists, remembered, unpack
from .long_tail import long_tailed, unlabelled_labels
from .models import Models, Tests, untrained
from .result import Condition, ShiftStudy


KEY_VERSION = "shift 6"
"""Changes with the code of this study, so that nothing that older code found is used."""

DEFAULT_SHIFTS = ("gaussian_noise", "defocus", "dark", "jpeg")
"""One of each kind: sensor, lens, light, file."""

DEFAULT_SEVERITIES = (0, 1, 3, 5)


def shift_study(
    recipe: Recipe,
    output_dir: Path,
    progress: Callable[[str], None],
    *,
    shifts: Sequence[str] = DEFAULT_SHIFTS,
    severities: Sequence[int] = DEFAULT_SEVERITIES,
    baselines: Sequence[str] = (),
    tasks: Sequence[str] = (),
    long_tail: float | None = None,
) -> ShiftStudy:
    """Shift the unlabelled and the test images of a recipe, and compare experts, experts with nine views, baselines,
    meta-model and specialists there and on the clean test images.

    The unlabelled images of all tasks are shifted, whichever are measured, and the meta-model is learned from them.
    Severity 0 is the recipe's own images, which all shifts share.

    Args:
        recipe: Recipe with evaluation images, and an expert for every task that is measured.
        output_dir: Folder of work in progress; a study that was cut off goes on there.
        progress: Called with one line at every step.
        shifts: Names of targets (`hf_mdft.shifts.Target`).
        severities: Severities, 0 to 5.
        baselines: Names of presets and training-free methods to compare with.
        tasks: Tasks to measure; the default is all that have evaluation images and an expert.
        long_tail: The unlabelled images of every task are drawn so that the largest class has so many times as many
            as the smallest. This reads their labels, to draw by; nothing that is trained sees one.

    Raises:
        InputError: Something asked for does not exist, no task can be measured, the recipe makes no specialists, or
            the unlabelled images of a task have no labels to draw by.
    """
    needs_specialists(recipe)
    targets = [Target.parse(text) for text in dict.fromkeys(shifts)]
    for severity in severities:
        if severity not in SEVERITIES:
            raise InputError(f"severity {severity}: known are 0 (the images as they are) to {SEVERITIES[-1]}")
    if long_tail is not None and not 1 <= long_tail < float("inf"):
        raise InputError(f"long tail {long_tail}: give how many times the smallest class the largest has, at least 1")
    baselines = tuple(dict.fromkeys(baselines))
    for name in baselines:
        Baseline.named(name, recipe, output_dir)  # what it refuses, it refuses before anything is trained
    merger = recipe.merger()
    measured = [task for task in measured_tasks(merger, str(recipe.path)) if merger.pool.experts_of(task)]
    for task in merger.named(tasks) if tasks else ():
        if task not in measured:
            raise InputError(f"{recipe.path}: task '{task}' has no evaluation images, or no expert to compare with")
    chosen = [task for task in measured if not tasks or task in tasks]
    if not chosen:
        raise InputError(f"{recipe.path}: no task with evaluation images has an expert to compare with")
    study = _Study(merger, recipe, output_dir, chosen, baselines, progress)
    if long_tail is not None:
        study.draw(long_tail)
    wanted = [(target, severity) for target in targets for severity in sorted(set(severities)) if target.shifts]
    as_is = 0 in severities or len(wanted) == 0 or AS_IS in shifts
    conditions = [study.condition(Target(AS_IS), 0)] if as_is else []
    conditions += [study.condition(target, severity) for target, severity in wanted if severity]
    return ShiftStudy(chosen, list(baselines), study.class_sizes, conditions)


class _Study:
    """Conditions of one recipe on shared images and heads."""

    def __init__(
        self,
        merger: MetaMerger,
        recipe: Recipe,
        folder: Path,
        tasks: list[str],
        baselines: tuple[str, ...],
        progress: Callable[[str], None],
    ) -> None:
        self.merger, self.recipe, self.folder = merger, recipe, folder
        self.baselines, self.progress = baselines, progress
        self.clean = {task: merger.labelled(task) for task in tasks}
        self.rows: dict[str, np.ndarray] = {}
        self.class_sizes: dict[str, list[int]] | None = None

    def draw(self, ratio: float) -> None:
        """Make the unlabelled images long-tailed from now on."""
        self.folder, self.class_sizes = self.folder / f"long-tail-{ratio:g}", {}
        for task in self.merger.tasks:
            labels = unlabelled_labels(self.merger, task)
            self.rows[task] = long_tailed(labels, ratio, self.recipe.seed)
            sizes = labels[self.rows[task]].unique(return_counts=True)[1].sort(descending=True).values.tolist()
            self.class_sizes[task] = sizes
            self.progress(
                f"{task}: {sum(sizes)} of {len(labels)} unlabelled images, classes of {sizes[0]} to {sizes[-1]}"
            )

    def unlabelled(self, task: str, target: Target, severity: int) -> Images:
        images = target.learned(self.merger.unlabelled(task), severity, self.recipe.seed)
        return images.subset(self.rows[task]) if self.rows else images

    def condition(self, target: Target, severity: int) -> Condition:
        """Make and measure all models of one condition."""
        title = f"{target.text}, severity {severity}" if severity else target.text
        tests: dict[str, dict[str, LabelledImages]] = {"clean": self.clean}
        if severity:
            tests["shifted"] = {
                task: replace(data, images=target.tested(data.images, severity, self.recipe.seed))
                for task, data in self.clean.items()
            }
        unlabelled = {task: self.unlabelled(task, target, severity) for task in self.merger.tasks}
        folder = self.folder / re.sub(r"[^\w-]", "-", f"{target.text}-{severity}" if severity else target.text)
        models = Models(self.merger, self.recipe, unlabelled, folder)
        found: dict[str, Any] = {}
        for kind in ("expert", *self.baselines, "meta", "specialist"):
            self.progress(f"{title}: {kind}")
            if untrained(kind):  # on clean images these are measured once
                saved = self._kept(models, kind, {"clean": self.clean}, self.folder)
                if severity:
                    shifted = self._kept(models, kind, {"shifted": tests["shifted"]}, folder)["found"]
                    saved["found"] = {name: by | shifted[name] for name, by in saved["found"].items()}
            else:
                saved = self._kept(models, kind, tests, folder)
            found |= saved["found"]
        outcomes = {name: {images: unpack(by) for images, by in packed.items()} for name, packed in found.items()}
        labels = {task: data.labels for task, data in self.clean.items()}
        return Condition.of(target.text, severity, outcomes, labels, self.baselines, saved["gate"])

    def _kept(self, models: Models, kind: str, tests: Tests, folder: Path) -> dict[str, Any]:
        """What models of one kind classify correctly, from an earlier call where nothing has changed."""
        key = [KEY_VERSION, kind, self.merger.pool.reference(), [head.key() for head in self.merger.heads().values()]]
        key.append({task: self.merger.experts(task).key() for task in self.clean})
        several = [task for task in self.clean if len(self.merger.pool.experts_of(task)) > 1]
        key.append({task: self.merger.expert(task) for task in several})  # chosen by the unlabelled images
        for images, data in tests.items():
            key.append([images, {task: [d.images.key, key_of(d.labels.tolist())] for task, d in data.items()}])
        if not untrained(kind):
            recipe = self.recipe.with_preset(kind) if kind in self.baselines else self.recipe
            key += [{task: images.key for task, images in models.unlabelled.items()}, recipe.adapter, recipe.meta]
            key += [recipe.specialize, recipe.seed]
        found = remembered(folder / f"{kind}.json", key, lambda: models.measure(kind, tests))
        models.tidy(kind)
        return found
