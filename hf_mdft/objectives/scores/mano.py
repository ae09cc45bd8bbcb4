"""MaNo: the norm of normalised logits."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .base import SCORES, Evidence


P = 4
"""The norm; the paper's."""

CALIBRATED = 5.0
"""Mean cross-entropy to the uniform distribution, in nats, above which logits can be trusted; the paper's."""


@SCORES.register("mano")
def mano(evidence: Evidence) -> float:
    """Matrix norm of the normalised logits (MaNo, Xie et al. 2024, https://huggingface.co/papers/2405.18979). It
    prefers a collapsed model: it sees how large the logits of each image are, not how classes are spread.

    The expert's logits decide how both are normalised, for values of two kinds cannot be compared.
    """
    trusted = to_uniform(evidence.expert.logits) > CALIBRATED
    mine, theirs = (norm(normalized(o.logits, trusted)) for o in (evidence.specialist, evidence.expert))
    return mine - theirs


def to_uniform(logits: torch.Tensor) -> float:
    """Mean cross-entropy of softmax to the uniform distribution, in nats, for logits `(N, C)`."""
    return -logits.log_softmax(dim=-1).mean().item()


def normalized(logits: torch.Tensor, trusted: bool) -> torch.Tensor:
    """Rows `(N, C)` that sum to 1: softmax where logits are trusted, else a Taylor expansion of it, which hides less
    of what the logits say (the paper's softrun)."""
    if trusted:
        return logits.softmax(dim=-1)
    expanded = 1 + logits + logits**2 / 2
    return F.normalize(expanded - expanded.amin(dim=-1, keepdim=True), p=1, dim=-1)


def norm(rows: torch.Tensor) -> float:
    """`||S||_4 / (N C) ** (1 / 4)`, in [0, 1]."""
    return (rows.double() ** P).mean().item() ** (1 / P)
