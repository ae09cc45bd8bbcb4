"""Class frequencies that leave what the prior explains."""

from __future__ import annotations

import torch

from .base import SCORES, Evidence


@SCORES.register("class_drift")
def class_drift(evidence: Evidence) -> float:
    """Minus how far, in nats, the specialist's mean prediction q leaves what lies between the expert's, p, and the
    class prior, r: the larger one of `KL(r || q) - KL(r || p)` and `KL(q || p) - KL(r || p)`. It does not prefer a
    collapsed model."""
    mine, theirs, prior = evidence.specialist.class_frequencies, evidence.expert.class_frequencies, evidence.prior
    between = divergence(prior, theirs)
    return between - max(divergence(prior, mine), divergence(mine, theirs))


def divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    """`KL(p || q)` in nats, of distributions `(C,)`."""
    return (p * (p.clamp(min=1e-8) / q.clamp(min=1e-8)).log()).sum().item()
