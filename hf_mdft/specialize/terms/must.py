"""Self-training on a moving average's pseudo-labels."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from ...objectives import log_mean
from .base import STUDENT_TERMS, StudentBatch, StudentTerm


if TYPE_CHECKING:
    from ..arguments import SpecializeArguments
    from ..teacher import Teacher


DECAY = 0.99
"""Decay of the moving average: the authors' for small data sets, which a short run can follow (theirs rises to 0.9998
over 2,000 steps on large ones)."""

FAIRNESS = 1.0
"""Weight of the fairness regularisation; the authors' 1."""


@STUDENT_TERMS.register("must")
class Must(StudentTerm):
    """Cross-entropy to the classes that a moving average of the student predicts on slightly translated images, with a
    probability of at least `confidence_threshold`; plus fairness, the mean over classes of minus the log of the
    batch's mean prediction (MUST without masked patches, Li et al. 2023, https://huggingface.co/papers/2206.02967).

    The student sees strongly augmented images where `augmentation` is `strong`, as in the paper.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__(student)
        self.average = copy.deepcopy(student).requires_grad_(False).eval()

    def prepare(self, teacher: Teacher, args: SpecializeArguments) -> None:
        self.threshold = args.confidence_threshold

    def forward(self, batch: StudentBatch) -> torch.Tensor:
        with torch.no_grad():
            _, logits = batch.views.forward(batch.views.weak, self.average)
        confidence, classes = logits.softmax(dim=-1).max(dim=-1)
        kept = (confidence >= self.threshold).float()
        loss = F.cross_entropy(batch.logits, classes, reduction="none")
        return (kept * loss).sum() / kept.sum().clamp(min=1) - FAIRNESS * log_mean(batch.logits).mean()

    @torch.no_grad()
    def after_step(self, student: nn.Module) -> None:
        for mine, new in zip(self.average.parameters(), student.parameters(), strict=True):
            mine.lerp_(new, 1 - DECAY)
        for mine, new in zip(self.average.buffers(), student.buffers(), strict=True):
            mine.copy_(new)
