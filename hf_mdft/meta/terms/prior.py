"""Predicted class frequencies near the estimated class prior."""

from __future__ import annotations

import torch

from ...objectives import prior_divergence
from .base import META_TERMS, MetaTerm, TaskBatch


@META_TERMS.register("prior")
class PriorMatch(MetaTerm):
    """`KL(class prior || batch-mean prediction)`."""

    def forward(self, batch: TaskBatch) -> tuple[torch.Tensor, None]:
        return prior_divergence(batch.logits, batch.prior), None
