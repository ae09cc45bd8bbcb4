"""Soft neighborhood density."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..entropy import entropy
from .base import SCORES, Evidence, evenly


TEMPERATURE = 0.05
"""Temperature of the similarities; the paper's."""

MOST = 2000
"""Images that are compared, for there are as many similarities as pairs."""


@SCORES.register("snd")
def snd(evidence: Evidence) -> float:
    """Soft neighborhood density (Saito et al. 2021, https://huggingface.co/papers/2108.10860). It prefers a model that
    has wholly collapsed, where all images are neighbors."""
    return evidence.gain(density)


def density(probabilities: torch.Tensor) -> float:
    """Mean entropy, in nats, of how similar each image's prediction is to every other's, for probabilities `(N, C)`;
    large where predictions lie in dense groups. 0 for fewer than two images."""
    rows = F.normalize(evenly(probabilities, MOST), dim=-1)
    count = len(rows)
    if count < 2:
        return 0.0
    similar = rows @ rows.T / TEMPERATURE
    others = similar[~torch.eye(count, dtype=torch.bool, device=rows.device)].view(count, count - 1)
    return entropy(others).mean().item()
