"""Information maximisation where classes are taken to be equally frequent."""

from __future__ import annotations

import torch

from ...objectives import entropy
from .base import STUDENT_TERMS, StudentBatch, StudentTerm


@STUDENT_TERMS.register("mutual_information")
class MutualInformation(StudentTerm):
    """Mean entropy - entropy of the batch's mean prediction: minus the mutual information of image and class (SHOT,
    Liang et al. 2020, https://huggingface.co/papers/2002.08546).

    `infomax` is the same towards the teacher's class frequencies in place of equal ones.
    """

    def forward(self, batch: StudentBatch) -> torch.Tensor:
        mean = batch.logits.softmax(dim=-1).mean(dim=0).clamp(min=1e-8)
        return entropy(batch.logits).mean() + (mean * mean.log()).sum()
