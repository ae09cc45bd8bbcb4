"""The models that are compared under one condition, each made when it is first measured."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...embedding import embed_images, embed_views
from ...embedding.views import TEACHER_VIEWS, Offset
from ...evaluation import TRANSDUCTIVE, TransductiveMethod
from ...heads import Head
from ...merger import MetaMerger
from ...recipes.run import Baseline
from ...recipes.schema import Recipe
from ...tasks import Images, LabelledImages
from ..outcome import Outcome, pack


Tests = Mapping[str, Mapping[str, LabelledImages]]
"""Test images by what they are (`shifted`, `clean`), then by task."""

Packed = dict[str, dict[str, str]]
"""Which of them one model classifies correctly."""


class Models:
    """Meta-model, specialists and baselines, made of the same unlabelled images, and experts.

    Args:
        whole: Pool, tasks and heads.
        recipe: Options of both phases.
        unlabelled: Images to learn from, of all tasks.
        folder: Folder of work in progress: what is there is used, and models stay only until they are measured, for a
            study makes hundreds.
    """

    def __init__(self, whole: MetaMerger, recipe: Recipe, unlabelled: Mapping[str, Images], folder: Path) -> None:
        self.whole, self.recipe, self.unlabelled, self.folder = whole, recipe, unlabelled, folder

    @cached_property
    def merger(self) -> MetaMerger:
        """With the meta-model of these images: the one that a user would have."""
        merger = self.whole.variant()
        merger.learn_from(self.unlabelled)
        merger.fit(self.recipe.meta_arguments(self.folder))
        return merger

    def measure(self, kind: str, tests: Tests) -> dict[str, Any]:
        """Make models of one kind, and measure them.

        Args:
            kind: `expert`, `meta`, `specialist` or the name of a baseline.
            tests: Test images.

        Returns:
            `found`, `Packed` by model, and the `gate`'s decisions by task; JSON-able.
        """
        if kind == "expert":
            return {"found": _over_views(kind, tests, self.whole.pool.tower, self.whole), "gate": {}}
        if kind == "specialist":
            return self._specialists(tests)
        if kind in TRANSDUCTIVE:
            return {"found": {kind: _transduced(TRANSDUCTIVE.get(kind), tests, self.whole)}, "gate": {}}
        tasks = list(next(iter(tests.values())))
        made = self.merger
        if kind != "meta":
            made = Baseline.from_preset(kind, self.recipe, self._baseline(kind)).made(self.merger, tasks)
        if made.specialists:
            return {"found": {kind: _correct(tests, lambda task: made.specialists[task].tower(), made)}, "gate": {}}
        tower = made.meta_tower()
        return {"found": {kind: _correct(tests, lambda _: tower, made, made.meta_head)}, "gate": {}}

    def tidy(self, kind: str) -> None:
        """Remove models of a kind that was measured; the meta-model stays, for baselines that are asked for later."""
        if kind not in ("expert", "meta"):
            work = self.folder / "specialists" if kind == "specialist" else self._baseline(kind)
            shutil.rmtree(work, ignore_errors=True)

    def _baseline(self, kind: str) -> Path:
        return self.folder / "baselines" / kind

    def _specialists(self, tests: Tests) -> dict[str, Any]:
        tasks = list(next(iter(tests.values())))
        # A variant, so that what is asked of `merger` later is still the meta-model alone.
        made = self.merger.variant(fitted=True).specialize(self.recipe.specialize_arguments(self.folder), tasks)
        found = _over_views("specialist", tests, lambda task: made[task].tower(), self.whole)
        refused = {images: {t: data[t] for t in tasks if not made[t].improved} for images, data in tests.items()}
        ungated = _correct(refused, lambda task: made[task].tower(gated=False), self.whole)
        found["specialist_ungated"] = {images: found["specialist"][images] | ungated[images] for images in tests}
        return {"found": found, "gate": {task: dataclasses.asdict(made[task].decision) for task in tasks}}


def _over_views(
    name: str, tests: Tests, tower_of: Callable[[str], nn.Module], merger: MetaMerger
) -> dict[str, Packed]:
    """A model as it is, and by test-time augmentation: the geometric mean over nine views."""
    plain, averaged = _outcomes(tests, tower_of, merger, merger.head, TEACHER_VIEWS)
    return {name: plain, f"{name}_views": averaged}


def _transduced(method: TransductiveMethod, tests: Tests, merger: MetaMerger) -> Packed:
    """What a training-free method makes of the experts' outputs on all of a task's test images at once."""
    found: dict[str, Outcome] = {images: {} for images in tests}
    for images, by_task in tests.items():
        for task, data in by_task.items():
            features = embed_images(merger.pool.tower(task), merger.pool.architecture, data.images)
            with torch.no_grad():
                made = method(merger.head(task)(features).softmax(dim=-1), features)
            found[images][task] = made.argmax(dim=-1) == data.labels
    return {images: pack(outcome) for images, outcome in found.items()}


def _correct(
    tests: Tests,
    tower_of: Callable[[str], nn.Module],
    merger: MetaMerger,
    head_of: Callable[[str], Head] | None = None,
) -> Packed:
    return _outcomes(tests, tower_of, merger, head_of or merger.head, TEACHER_VIEWS[:1])[0]


def _outcomes(
    tests: Tests,
    tower_of: Callable[[str], nn.Module],
    merger: MetaMerger,
    head_of: Callable[[str], Head],
    views: tuple[Offset, ...],
) -> tuple[Packed, Packed]:
    """What is right by the first view, and by the geometric mean over all."""
    first: dict[str, Outcome] = {images: {} for images in tests}
    mean: dict[str, Outcome] = {images: {} for images in tests}
    for task in next(iter(tests.values())):
        tower, head = tower_of(task), head_of(task)
        for images, data in tests.items():
            with torch.no_grad():
                logits = head(embed_views(tower, merger.pool.architecture, data[task].images, views))
            first[images][task] = logits[0].argmax(dim=-1) == data[task].labels
            mean[images][task] = logits.log_softmax(dim=-1).mean(dim=0).argmax(dim=-1) == data[task].labels
    return tuple({images: pack(found) for images, found in by.items()} for by in (first, mean))
