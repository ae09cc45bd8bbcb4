"""Confident predictions, on images that a filter lets pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...objectives import FILTERS, entropy, max_entropy
from .base import META_TERMS, MetaTerm, TaskBatch


if TYPE_CHECKING:
    from ..arguments import MdftTrainingArguments


@META_TERMS.register("entropy")
class FilteredEntropy(MetaTerm):
    """Entropy of predictions, each image weighted by `args.filter`; in units of ln C with `args.normalize_entropy`."""

    def __init__(self, num_classes: int, args: MdftTrainingArguments) -> None:
        super().__init__(num_classes, args)
        spec = {"name": args.filter} if isinstance(args.filter, str) else args.filter
        self.filter = FILTERS.build({**spec, "num_classes": num_classes})

    def forward(self, batch: TaskBatch) -> tuple[torch.Tensor, torch.Tensor]:
        weights = self.filter(batch.logits)
        scale = max_entropy(self.num_classes) if self.args.normalize_entropy else 1.0
        return (weights * entropy(batch.logits)).mean() / scale, (weights > 0).float().mean()
