"""Entropy minimisation, of all images or of those that a filter lets pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...objectives import FILTERS, entropy
from .base import STUDENT_TERMS, StudentBatch, StudentTerm


if TYPE_CHECKING:
    from ..arguments import SpecializeArguments
    from ..teacher import Teacher


@STUDENT_TERMS.register("entropy")
class Entropy(StudentTerm):
    """Mean entropy of predictions (TENT, Wang et al. 2021, https://huggingface.co/papers/2006.10726)."""

    def forward(self, batch: StudentBatch) -> torch.Tensor:
        return entropy(batch.logits).mean()


@STUDENT_TERMS.register("filtered_entropy")
class FilteredEntropy(StudentTerm):
    """Mean weighted entropy of the images that the filter `eata` keeps, as reliable and not redundant (EATA, Niu et
    al. 2022, https://huggingface.co/papers/2204.02610)."""

    def prepare(self, teacher: Teacher, args: SpecializeArguments) -> None:
        self.filter = FILTERS.build({"name": "eata", "num_classes": teacher.probabilities.shape[-1]})

    def forward(self, batch: StudentBatch) -> torch.Tensor:
        weights = self.filter(batch.logits)
        return (weights * entropy(batch.logits)).sum() / (weights > 0).sum().clamp(min=1)
