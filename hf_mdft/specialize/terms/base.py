"""What every term of the student's loss is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ...core.registry import Registry


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
    """

    features: torch.Tensor
    logits: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    target_features: torch.Tensor
    class_frequencies: torch.Tensor


class StudentTerm(nn.Module):
    """A term of the student's outputs; buffers are its memory, and checkpoints hold them.

    Args:
        student: Tower of the student at its start.
    """

    name: str

    def __init__(self, student: nn.Module) -> None:
        super().__init__()

    def forward(self, batch: StudentBatch) -> torch.Tensor:
        """Value before its weight, a scalar."""
        raise NotImplementedError


class WeightTerm(nn.Module):
    """A term of the student's weights, whose gradient is known in closed form: autograd does not see it.

    Args:
        student: Tower of the student at its start.
    """

    name: str

    def __init__(self, student: nn.Module) -> None:
        super().__init__()

    def forward(self, student: nn.Module, weight: float) -> torch.Tensor:
        """Value before its weight, a scalar; `weight` times its gradient is added to the `grad` of parameters."""
        raise NotImplementedError


STUDENT_TERMS: Registry[type[StudentTerm] | type[WeightTerm]] = Registry("term of phase 2")
