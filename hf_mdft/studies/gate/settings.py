"""How candidates are made: as the recipe says, and in ways that do harm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...tasks import Images


@dataclass(frozen=True)
class Given:
    """What a candidate may be made from.

    Args:
        images: All unlabelled images of the task.
        predictions: The expert's class of each, `(N,)`.
        count: Number of images to use; `None` is all.
        seed: Seed of the choice.
    """

    images: Images
    predictions: torch.Tensor
    count: int | None
    seed: int


def chosen_by_chance(given: Given) -> Images:
    """So many images."""
    return given.images.sample(given.count, given.seed)


def of_one_class(given: Given) -> Images:
    """Images of the class that the expert predicts most often, by its own predictions."""
    most = given.predictions.bincount().argmax()
    rows = (given.predictions == most).nonzero().squeeze(1)
    return given.images.subset(rows.numpy()).sample(given.count, given.seed)


def repeated(given: Given) -> Images:
    """`FEW` images, again and again."""
    few = given.images.sample(FEW, given.seed)
    return few.subset(np.resize(np.arange(len(few)), min(given.count or len(given.images), len(given.images))))


@dataclass(frozen=True)
class Setting:
    """One way to make candidates.

    Args:
        about: What it does, in a few words.
        images: Chooses the unlabelled images.
        options: Options of phase 2 that it sets.
        rate: Factor of the learning rate.
        count: Number of images; the default is what the study is asked for.
    """

    about: str
    images: Callable[[Given], Images] = chosen_by_chance
    options: tuple[tuple[str, Any], ...] = ()
    rate: float = 1.0
    count: int | None = None


FEW = 8
"""Different images among duplicates."""

SETTINGS = {
    "own": Setting("the recipe's own options"),
    "rate": Setting("five times the learning rate", rate=5.0),
    "epochs": Setting("30 epochs of 64 images", options=(("max_steps", -1), ("num_train_epochs", 30)), count=64),
    "one-class": Setting("images of one predicted class only", images=of_one_class),
    "duplicates": Setting(f"{FEW} images, again and again", images=repeated),
}
"""By name; all but the first do harm more often than not."""
