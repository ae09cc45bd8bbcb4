"""What every score is made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from ...core.registry import Registry
from ..prior import estimate_prior


class Outputs(Protocol):
    """Outputs of one model on the N unlabelled images of a task with C classes."""

    @property
    def logits(self) -> torch.Tensor:
        """Logits on the images as they are, `(N, C)`."""

    @property
    def held_out(self) -> torch.Tensor:
        """Predicted class under each of V held-out views, `(V, N)`."""

    @property
    def consistency(self) -> float:
        """Share of predictions that small translations leave as they are."""

    @property
    def class_frequencies(self) -> torch.Tensor:
        """Mean prediction, `(C,)`."""

    @property
    def predictions(self) -> torch.Tensor:
        """Predicted class of the images as they are, `(N,)`."""


@dataclass(frozen=True)
class Evidence:
    """Everything that is known without labels of a specialist and its expert, on the same images.

    Args:
        specialist: Outputs of the specialist.
        expert: Outputs of the expert.
        others: Weight and predicted classes `(N,)` of every other model.
        candidates: Logits `(N, C)` of further candidates, such as interpolations of the two.
    """

    specialist: Outputs
    expert: Outputs
    others: tuple[tuple[float, torch.Tensor], ...] = ()
    candidates: tuple[torch.Tensor, ...] = ()

    @property
    def prior(self) -> torch.Tensor:
        """Class prior `(C,)`, estimated from the expert."""
        return estimate_prior(self.expert.class_frequencies[None])

    def gain(self, of_one: Callable[[torch.Tensor], float]) -> float:
        """A function of one model's probabilities `(N, C)`: its value for the specialist minus that for the expert."""
        return of_one(self.specialist.logits.softmax(dim=-1)) - of_one(self.expert.logits.softmax(dim=-1))


Score = Callable[[Evidence], float]

SCORES: Registry[Score] = Registry("score")


def evenly(tensor: torch.Tensor, most: int) -> torch.Tensor:
    """At most so many of a tensor's rows, evenly spaced: the same rows of every model's outputs."""
    if len(tensor) <= most:
        return tensor
    return tensor[torch.linspace(0, len(tensor) - 1, most).long()]
