"""Agreement with what neither of the two was trained on."""

from __future__ import annotations

import torch

from .base import SCORES, Evidence


@SCORES.register("agreement")
def agreement(evidence: Evidence) -> float:
    """Agreement with the expert's own predictions on held-out views, and with other models by their weights. It does
    not prefer a collapsed model, and leans to the expert, whose views share its errors."""
    return agreement_by_image(evidence).mean().item()


def agreement_by_image(evidence: Evidence) -> torch.Tensor:
    """Agreement with the specialist minus that with the expert, in [-1, 1], on every image, `(N,)`: a weighted mean
    over the expert's held-out views, which together have weight 1, and the other models; 0 where there are none."""
    specialist, expert = evidence.specialist.predictions, evidence.expert.predictions
    held_out = evidence.expert.held_out
    told = [*((1 / len(held_out), view) for view in held_out), *evidence.others]
    total = torch.zeros(len(expert))
    for weight, predicted in told:
        total += weight * ((specialist == predicted).float() - (expert == predicted).float())
    return total / (sum(weight for weight, _ in told) or 1.0)
