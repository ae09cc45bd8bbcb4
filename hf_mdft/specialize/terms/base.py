"""What every term of the student's loss is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...core.registry import Registry
from .views import BatchViews


if TYPE_CHECKING:
    from ..arguments import SpecializeArguments
    from ..teacher import Teacher


@dataclass(frozen=True)
class StudentBatch:
    """The student's outputs on a batch, and the teacher's.

    Args:
        features: Embeddings of the student, `(n, width)`.
        logits: Logits of the student, `(n, C)`.
        targets: Soft targets of the teacher, `(n, C)`.
        weights: How much each image counts, in [0, 1], `(n,)`.
        target_features: Embeddings of the teacher's reference, `(n, width)`.
        class_frequencies: Mean of the teacher's targets over all images of the task, `(C,)`.
        index: Which of the task's images these are, `(n,)`.
        progress: Share of the steps that are done, in [0, 1).
        views: The images, to be looked at once more.
    """

    features: torch.Tensor
    logits: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    target_features: torch.Tensor
    class_frequencies: torch.Tensor
    index: torch.Tensor | None = None
    progress: float = 0.0
    views: BatchViews | None = None


class Term(nn.Module):
    """What both kinds share; buffers are a term's memory, and checkpoints hold them.

    Args:
        student: Tower of the student at its start.
    """

    name: str

    def __init__(self, student: nn.Module) -> None:
        super().__init__()

    def prepare(self, teacher: Teacher, args: SpecializeArguments) -> None:
        """Called once, before training: for what depends on all images or on options. Buffers may be made here.

        Args:
            teacher: Targets and the reference's embeddings, of all images in order. Copy what is kept.
            args: Options of phase 2.
        """

    def after_step(self, student: nn.Module) -> None:
        """Called after every optimizer step.

        Args:
            student: Tower of the student.
        """


class StudentTerm(Term):
    """A term of the student's outputs."""

    def forward(self, batch: StudentBatch) -> torch.Tensor:
        """Value before its weight, a scalar."""
        raise NotImplementedError


class WeightTerm(Term):
    """A term of the student's weights, whose gradient is known in closed form: autograd does not see it."""

    def forward(self, student: nn.Module, weight: float) -> torch.Tensor:
        """Value before its weight, a scalar; `weight` times its gradient is added to the `grad` of parameters."""
        raise NotImplementedError


STUDENT_TERMS: Registry[type[Term]] = Registry("term of phase 2")
