"""Mutual information of image and class."""

from __future__ import annotations

import torch

from ..entropy import image_information, max_entropy
from .base import SCORES, Evidence


@SCORES.register("mutual_information")
def mutual_information(evidence: Evidence) -> float:
    """Mutual information of image and predicted class, over ln C (Bridle et al. 1991; what information maximisation
    trains). It does not prefer a collapsed model, which has none."""
    return evidence.gain(information)


def information(probabilities: torch.Tensor) -> float:
    """`(H(mean p) - mean H(p)) / ln C`, in [0, 1], of probabilities `(N, C)`."""
    return image_information(probabilities).mean().item() / max(max_entropy(probabilities.shape[-1]), 1e-12)
