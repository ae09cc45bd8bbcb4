"""Information maximisation."""

from __future__ import annotations

import torch

from ...objectives import entropy
from .base import STUDENT_TERMS, StudentBatch, StudentTerm


@STUDENT_TERMS.register("infomax")
class Infomax(StudentTerm):
    """Mean entropy + `KL(batch-mean prediction || the teacher's class frequencies)`.

    Where the teacher's classes are equally frequent it is information maximisation (SHOT, Liang et al. 2020,
    https://huggingface.co/papers/2002.08546), up to a constant.
    """

    def forward(self, batch: StudentBatch) -> torch.Tensor:
        mean = batch.logits.softmax(dim=-1).mean(dim=0).clamp(min=1e-8)
        skew = (mean * (mean.log() - batch.class_frequencies.clamp(min=1e-8).log())).sum()
        return entropy(batch.logits).mean() + skew
