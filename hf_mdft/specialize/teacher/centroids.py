"""Pseudo-labels from the classes' centroids in an embedding."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional as F

from .base import TEACHER_PARTS, TeacherState


ROUNDS = 2
"""Centroids of the targets, and once more of the pseudo-labels that these give, as in SHOT."""


@TEACHER_PARTS.register("centroids")
def centroids(state: TeacherState) -> TeacherState:
    """The class of the nearest centroid with certainty, in the student's embedding (before the first refresh, in the
    reference's); all images count (SHOT, Liang et al. 2020, https://huggingface.co/papers/2002.08546)."""
    source = state.sources.get("student", state.reference)
    labels = nearest_centroids(state.probabilities, source.features)
    return replace(state, probabilities=labels, weights=torch.ones(len(labels), dtype=labels.dtype))


def nearest_centroids(probabilities: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Pseudo-labels as probabilities, `(N, C)`: for every image the class whose centroid has the largest cosine.

    Classes that no image is predicted as are left out, as in SHOT; so is one that a round leaves without an image.

    Args:
        probabilities: Predictions `(N, C)`, which the first centroids are weighted by.
        features: Embeddings `(N, width)`; a 1 is appended, and they are scaled to length 1.
    """
    points = F.normalize(torch.cat([features, torch.ones_like(features[:, :1])], dim=-1), dim=-1)
    shares = probabilities
    predicted = F.one_hot(probabilities.argmax(dim=-1), probabilities.shape[-1]).any(dim=0)
    for _ in range(ROUNDS):
        # A mean and a sum have the same direction.
        cosines = points @ F.normalize(shares.T @ points, dim=-1).T
        known = predicted & (shares.sum(dim=0) > 0)
        labels = cosines.masked_fill(~known, -torch.inf).argmax(dim=-1)
        shares = F.one_hot(labels, probabilities.shape[-1]).to(probabilities)
    return shares
