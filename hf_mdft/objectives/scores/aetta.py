"""AETTA's estimate of the error, on our views."""

from __future__ import annotations

import math

import torch

from ..entropy import max_entropy
from .base import SCORES, Evidence, Outputs


@SCORES.register("aetta")
def aetta(evidence: Evidence) -> float:
    """Estimated error that was removed: the expert's minus the specialist's (AETTA, Lee et al. 2024,
    https://huggingface.co/papers/2404.01351). It does not prefer a collapsed model: the entropy is there for that."""
    return estimated_error(evidence.expert) - estimated_error(evidence.specialist)


def estimated_error(outputs: Outputs) -> float:
    """Share of changed predictions over `(H(mean prediction) / ln C) ** 3`, at most `1 - 1 / C`.

    The paper changes predictions by dropout, at rates that were set per data set; small translations take its place.
    No share below one in N can be told from none, so it counts as at least that: else a model that predicts one class
    whatever the view would have no error. The paper's smoothing over batches is left out: all images are seen at once.
    """
    count, classes = outputs.logits.shape
    mean = outputs.logits.softmax(dim=-1).mean(dim=0)
    spread = -torch.xlogy(mean, mean).sum().item() / max(max_entropy(classes), 1e-12)
    changed = max(1 - outputs.consistency, 1 / count)
    worst = 1 - 1 / classes
    return min(changed / spread**3, worst) if spread > 0 and math.isfinite(spread) else worst
