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

from ...embedding.views import TEST_VIEWS
from ...evaluation import TRANSDUCTIVE
from ...evaluation.compare import transduced
from ...evaluation.outputs import PLAIN, Outputs, look
from ...heads import Head
from ...merger import MetaMerger
from ...recipes.run import Baseline
from ...recipes.schema import Recipe
from ...tasks import Images, LabelledImages
from ..outcome import pack


Tests = Mapping[str, Mapping[str, LabelledImages]]
"""Test images by what they are (`shifted`, `clean`), then by task."""

Packed = dict[str, dict[str, str]]
"""Which of them one model classifies correctly."""


def untrained(kind: str) -> bool:
    """Whether models of a kind learn nothing from the unlabelled images."""
    return kind == "expert" or kind in TRANSDUCTIVE


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
            kind: `expert`, `meta`, `specialist`, or the name of a preset or training-free method.
            tests: Test images.

        Returns:
            `found`, `Packed` by model, and the `gate`'s decisions by task; JSON-able.
        """
        if kind == "expert":
            whole = self.whole
            return {"found": _over_views(kind, tests, whole.expert_tower, whole.expert_head, whole), "gate": {}}
        if kind == "specialist":
            return self._specialists(tests)
        if kind in TRANSDUCTIVE:
            return {"found": {kind: _training_free(kind, tests, self.whole)}, "gate": {}}
        tasks = list(next(iter(tests.values())))
        made = self.merger
        if kind != "meta":
            made = Baseline.from_preset(kind, self.recipe, self._baseline(kind)).made(self.merger, tasks)
        if made.specialists:
            held = made.specialists
            found = _correct(tests, lambda task: held[task].tower(), lambda task: held[task].head, made)
            return {"found": {kind: found}, "gate": {}}
        tower = made.meta_tower()
        return {"found": {kind: _correct(tests, lambda _: tower, made.meta_head, made)}, "gate": {}}

    def tidy(self, kind: str) -> None:
        """Remove models of a kind that was measured; the meta-model stays, for baselines that are asked for later."""
        if kind != "meta" and not untrained(kind):
            work = self.folder / "specialists" if kind == "specialist" else self._baseline(kind)
            shutil.rmtree(work, ignore_errors=True)

    def _baseline(self, kind: str) -> Path:
        return self.folder / "baselines" / kind

    def _specialists(self, tests: Tests) -> dict[str, Any]:
        tasks = list(next(iter(tests.values())))
        # A variant, so that what is asked of `merger` later is still the meta-model alone.
        made = self.merger.variant(fitted=True).specialize(self.recipe.specialize_arguments(self.folder), tasks)
        found = _over_views(
            "specialist", tests, lambda task: made[task].tower(), lambda task: made[task].head, self.whole
        )
        others = {images: {t: data[t] for t in tasks if made[t].decision.share < 1} for images, data in tests.items()}
        ungated = _correct(
            others,
            lambda task: made[task].tower(gated=False),
            lambda task: made[task].candidate_head,
            self.whole,
        )
        found["specialist_ungated"] = {images: found["specialist"][images] | ungated[images] for images in tests}
        return {"found": found, "gate": {task: dataclasses.asdict(made[task].decision) for task in tasks}}


def _over_views(
    name: str,
    tests: Tests,
    tower_of: Callable[[str], nn.Module],
    head_of: Callable[[str], Head],
    merger: MetaMerger,
) -> dict[str, Packed]:
    """A model as it is, and by test-time augmentation."""
    seen = _seen(tests, tower_of, head_of, merger, views=True)
    return {
        name: _packed(tests, lambda images, task: seen[images][task].classes),
        f"{name}_views": _packed(tests, lambda images, task: seen[images][task].classes_over_views),
    }


def _correct(
    tests: Tests,
    tower_of: Callable[[str], nn.Module],
    head_of: Callable[[str], Head],
    merger: MetaMerger,
) -> Packed:
    seen = _seen(tests, tower_of, head_of, merger)
    return _packed(tests, lambda images, task: seen[images][task].classes)


def _training_free(name: str, tests: Tests, merger: MetaMerger) -> Packed:
    """A method that reads the experts' outputs on all test images of a task at once."""
    seen, method = _seen(tests, merger.expert_tower, merger.expert_head, merger), TRANSDUCTIVE.get(name)
    return _packed(tests, lambda images, task: transduced(name, method, seen[images][task], task))


def _packed(tests: Tests, classes_of: Callable[[str, str], torch.Tensor]) -> Packed:
    return {
        images: pack({task: classes_of(images, task) == data[task].labels for task in data})
        for images, data in tests.items()
    }


def _seen(
    tests: Tests,
    tower_of: Callable[[str], nn.Module],
    head_of: Callable[[str], Head],
    merger: MetaMerger,
    *,
    views: bool = False,
) -> dict[str, dict[str, Outputs]]:
    """Outputs by what the test images are, then by task."""
    seen: dict[str, dict[str, Outputs]] = {images: {} for images in tests}
    for task in next(iter(tests.values())):
        tower, head = tower_of(task), head_of(task)
        for images, data in tests.items():
            seen[images][task] = look(
                tower,
                merger.pool.architecture,
                head,
                data[task].images,
                views=TEST_VIEWS if views else PLAIN,
                desc=f"{images} {task}",
            )
    return seen
