"""The teacher's soft targets, from its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ...experts import Source
from ...objectives import certainty
from .base import TEACHER_PARTS, TeacherState


if TYPE_CHECKING:
    from ..arguments import SpecializeArguments


@dataclass(frozen=True)
class Teacher:
    """Soft targets for every image.

    Args:
        probabilities: Soft targets `(N, C)`.
        weights: How much each image counts, in [0, 1], `(N,)`.
        features: Embedding that the student stays aligned with, `(N, width)`.
    """

    probabilities: torch.Tensor
    weights: torch.Tensor
    features: torch.Tensor


def build_teacher(sources: Mapping[str, Source], args: SpecializeArguments) -> Teacher:
    """The teacher that `args.teacher` names: its parts, in order, each given what the one before has made.

    Args:
        sources: Outputs of every model on the images, by name; the first is the reference.
        args: Options of phase 2.
    """
    reference = next(iter(sources.values()))
    state = TeacherState(reference.log_probs.exp(), sources, args)
    for name in args.teacher:
        made = TEACHER_PARTS.get(name)(state)
        state = made if isinstance(made, TeacherState) else replace(state, probabilities=made)
    weights = certainty(state.probabilities) if state.weights is None else state.weights
    return Teacher(state.probabilities, weights, reference.features)
