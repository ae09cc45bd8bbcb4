"""Distillation from the task's own expert."""

from __future__ import annotations

import torch

from ...objectives import agreement_rule, embedding_distance, expert_divergence, hard_distillation
from .base import META_TERMS, MetaTerm, TaskBatch


@META_TERMS.register("distillation")
class Distillation(MetaTerm):
    """Distance to the expert by `args.distillation_distance`, without the images that `args.agreement_rule` leaves
    out: a mean over the batch, of pseudo-labels (`hard`) over those that are kept, as in SyMerge's code."""

    def forward(self, batch: TaskBatch) -> tuple[torch.Tensor, torch.Tensor]:
        logits, expert = batch.logits, batch.expert_logits
        weights = agreement_rule(logits, expert) if self.args.agreement_rule else torch.ones_like(logits[:, 0])
        if self.args.distillation_distance == "kl":
            distance = expert_divergence(logits, expert, self.args.distillation_temperature)
        elif self.args.distillation_distance == "hard":
            distance = hard_distillation(logits, expert)
        else:
            distance = embedding_distance(batch.features, batch.expert_features)
        counted = weights.sum().clamp(min=1) if self.args.distillation_distance == "hard" else len(weights)
        return (weights * distance).sum() / counted, weights.mean()
