"""Distillation from the teacher."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .base import STUDENT_TERMS, StudentBatch, StudentTerm


@STUDENT_TERMS.register("distillation")
class Distillation(StudentTerm):
    """`KL(teacher || student)`, each image weighted by how certain the teacher is."""

    def forward(self, batch: StudentBatch) -> torch.Tensor:
        log_probs = batch.logits.log_softmax(dim=-1)
        divergence = F.kl_div(log_probs, batch.targets, reduction="none").sum(dim=-1)
        return (batch.weights * divergence).sum() / batch.weights.sum().clamp(min=1e-8)
