"""Hostile sets of images. Those of classes read the labels of the unlabelled images, to draw by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...merger import MetaMerger
from ...tasks import Images, Task, read_unlabelled
from ..shift.long_tail import long_tailed, unlabelled_labels


COUNT = 480
"""Images of a set, where there are as many."""

FEW = 10
"""Different pictures among copies."""


@dataclass(frozen=True)
class Request:
    """What a set is made from.

    Args:
        merger: Pool, tasks and their images.
        task: Name of the task.
        seed: Seed of every choice.
    """

    merger: MetaMerger
    task: str
    seed: int

    @property
    def images(self) -> Images:
        return self.merger.unlabelled(self.task)

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def pictures(self, arrays: np.ndarray) -> Images:
        """Pictures `(N, height, width, 3)` of bytes, as the task's model sees them."""
        return read_unlabelled(self.task, Task(list(arrays)), self.merger.preprocessor(self.task))

    def drawn(self, count: int) -> np.ndarray:
        """Pixels `(count, height, width, 3)` of some of the task's own images."""
        rows = self.rng.permutation(len(self.images))[:count]
        return self.images.pixels(rows).permute(0, 2, 3, 1).numpy()


def _own(given: Request) -> Images:
    return given.images.sample(COUNT, given.seed)


def _copies(count: int) -> Callable[[Request], Images]:
    def make(given: Request) -> Images:
        return given.images.subset(np.resize(given.rng.permutation(len(given.images))[:count], COUNT))

    return make


def _near_copies(given: Request) -> Images:
    few, rng = given.drawn(FEW).astype(int), given.rng
    noise = rng.integers(-3, 4, (COUNT, *few.shape[1:]))
    return given.pictures(np.clip(few[np.arange(COUNT) % FEW] + noise, 0, 255).astype(np.uint8))


def _one_class(given: Request) -> Images:
    labels = unlabelled_labels(given.merger, given.task).numpy()
    rows = np.flatnonzero(labels == given.rng.choice(np.unique(labels)))
    return given.images.subset(rows[:COUNT])


def _tail(ratio: float) -> Callable[[Request], Images]:
    def make(given: Request) -> Images:
        rows = long_tailed(unlabelled_labels(given.merger, given.task), ratio, given.seed)
        return given.images.subset(rows).sample(COUNT, given.seed)

    return make


def _another_task(given: Request) -> Images:
    names = [name for name in given.merger.tasks if name != given.task]
    other = given.merger.unlabelled(names[given.rng.integers(len(names))]).sample(COUNT, given.seed)
    return given.pictures(other.pixels(range(len(other))).permute(0, 2, 3, 1).numpy())


def _noise(given: Request) -> Images:
    shape = (COUNT, *given.images.shape[1:], 3)
    return given.pictures(given.rng.integers(0, 256, shape, dtype=np.uint8))


def _black(given: Request) -> Images:
    return given.pictures(np.zeros((COUNT, *given.images.shape[1:], 3), dtype=np.uint8))


@dataclass(frozen=True)
class Hostile:
    """One way to mislead a run.

    Args:
        about: What it is, in a few words.
        images: Makes the unlabelled images.
        expert: What is done to the expert: nothing, its weights are made random, or its classes are mixed up.
    """

    about: str
    images: Callable[[Request], Images] = _own
    expert: str = "own"


ANOTHER = "another-task"
"""Name of the kind that needs a second task."""

RANDOM, SHUFFLED = "random weights", "shuffled classes"

HOSTILE = {
    "own": Hostile("the task's own images, to compare with"),
    "one-picture": Hostile(f"{COUNT} copies of one picture", _copies(1)),
    "ten-pictures": Hostile(f"{FEW} pictures, again and again", _copies(FEW)),
    "near-copies": Hostile(f"{FEW} pictures with a little noise, again and again", _near_copies),
    "one-class": Hostile("images of one class", _one_class),
    "tail-50": Hostile("class sizes from 50 to 1", _tail(50)),
    "tail-100": Hostile("class sizes from 100 to 1", _tail(100)),
    ANOTHER: Hostile("images of another task", _another_task),
    "noise": Hostile("pixels by chance", _noise),
    "black": Hostile("black pictures", _black),
    "random-expert": Hostile("an expert with random weights", expert=RANDOM),
    "shuffled-head": Hostile("a head whose classes are mixed up", expert=SHUFFLED),
}
"""By name."""
