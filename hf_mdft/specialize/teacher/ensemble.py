"""Several models combined, each as far as label-free evidence supports it."""

from __future__ import annotations

import torch

from ...experts import Source
from .base import TEACHER_PARTS, TeacherState


CONSISTENCY_LEAD = 0.1
"""How much more consistent than the reference, relatively, a model must be to have full weight beside it."""


@TEACHER_PARTS.register("ensemble")
def ensemble(state: TeacherState) -> torch.Tensor:
    """Geometric mean of the models' probabilities; a model's share rises with its reliability, and on each image with
    its confidence there."""
    total, weight_sum = 0.0, 0.0
    for source in state.sources.values():
        full = state.counts_fully(source)
        share = 1.0 if full else state.args.ensemble_weight * reliability(source, state.reference)
        confidence = source.log_probs.exp().amax(dim=-1, keepdim=True)
        total = total + share * confidence * source.log_probs
        weight_sum = weight_sum + share * confidence
    return (total / weight_sum).softmax(dim=-1)


def reliability(source: Source, reference: Source) -> float:
    """Weight in [0, 1] of a model beside the reference, from two pieces of label-free evidence: how much more
    consistent its predictions are under small translations, and how often it agrees with the reference (a model that
    predicts one class everywhere is consistent too).

    Args:
        source: Outputs of the model.
        reference: Outputs of the reference.
    """
    lead = (source.consistency / max(reference.consistency, 1e-8) - 1) / CONSISTENCY_LEAD
    return agreement(source, reference) * min(1.0, max(0.0, lead))


def agreement(a: Source, b: Source) -> float:
    """Share of images on which two models, each averaged over its views, predict the same class."""
    return (a.log_probs.argmax(dim=-1) == b.log_probs.argmax(dim=-1)).float().mean().item()
