"""All classes predicted equally often."""

from __future__ import annotations

import torch

from ...objectives import concentration
from .base import META_TERMS, MetaTerm, TaskBatch


@META_TERMS.register("diversity")
class Diversity(MetaTerm):
    """Negative entropy of the batch's mean prediction over ln C (SHOT, Liang et al. 2020,
    https://huggingface.co/papers/2002.08546)."""

    def forward(self, batch: TaskBatch) -> tuple[torch.Tensor, None]:
        return concentration(batch.logits), None
