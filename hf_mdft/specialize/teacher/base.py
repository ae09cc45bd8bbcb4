"""What flows through the teacher's parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ...core.registry import Registry
from ...experts import Source


if TYPE_CHECKING:
    from ..arguments import SpecializeArguments


@dataclass(frozen=True)
class TeacherState:
    """What is known of a task's images between two parts of the teacher.

    Args:
        probabilities: Soft targets so far, `(N, C)`; at first the reference's predictions, averaged over its views.
        sources: Outputs of every model on the images, by name; the first is the reference.
        args: Options of phase 2.
        weights: How much each image counts, in [0, 1], `(N,)`; `None`: by the certainty of the final targets.
    """

    probabilities: torch.Tensor
    sources: Mapping[str, Source]
    args: SpecializeArguments
    weights: torch.Tensor | None = None

    @property
    def reference(self) -> Source:
        """Outputs of the task's expert; of the meta-model for a task without one."""
        return next(iter(self.sources.values()))

    def counts_fully(self, source: Source) -> bool:
        """Whether a model has full weight, whatever the evidence for it."""
        return source is self.reference or source.trusted


TeacherPart = Callable[[TeacherState], torch.Tensor | TeacherState]
"""Gives new probabilities `(N, C)`, which sum to 1 for every image; or a new state, where weights are new too."""

TEACHER_PARTS: Registry[TeacherPart] = Registry("part of the teacher")
