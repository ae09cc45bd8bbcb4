"""Confidence and diversity in one norm."""

from __future__ import annotations

import torch

from .base import SCORES, Evidence


@SCORES.register("nuclear_norm")
def nuclear_norm(evidence: Evidence) -> float:
    """Nuclear norm of the predictions, over its largest value (Deng et al. 2023,
    https://huggingface.co/papers/2302.01094). It does not prefer a collapsed model, whose matrix has rank one."""
    return evidence.gain(dispersion)


def dispersion(probabilities: torch.Tensor) -> float:
    """`||P||_* / sqrt(min(N, C) N)`, in (0, 1], of probabilities `(N, C)`; 1 where every class is predicted equally
    often and with certainty."""
    count, classes = probabilities.shape
    return torch.linalg.matrix_norm(probabilities, ord="nuc").item() / (min(count, classes) * count) ** 0.5
