"""TransCLIP."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .base import TRANSDUCTIVE
from .mixture import ROUNDS, assign, log_likelihood, log_of, neighbor_graph, scatter


MOST_CONFIDENT = 8
"""Images of a class that its mean starts from."""


@TRANSDUCTIVE.register("transclip")
def transclip(probabilities: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """TransCLIP (Zanella et al. 2024, https://huggingface.co/papers/2406.01837): all images at once, by the expert's
    predictions, a Gaussian for each class with a common variance, and the three nearest neighbors.

    The zero-shot form, on top of any predictor: the expert's probabilities are the prior (lambda = 1), and embeddings
    are those of its tower, for CLIP before the projection. The number of classes is the head's.

    Args:
        probabilities: Predictions of the expert, `(N, C)`.
        features: Embeddings of the expert, `(N, width)`.
    """
    units = F.normalize(features.float(), dim=-1)
    graph, units, assigned = neighbor_graph(units), units.double(), probabilities.double()
    (total, width), prior = units.shape, log_of(assigned)
    most_confident = assigned.topk(min(MOST_CONFIDENT, total), dim=0).indices
    means = F.normalize(units[most_confident].mean(dim=0), dim=-1)
    variance = torch.full((width,), 1 / width, dtype=units.dtype)
    for _ in range(ROUNDS):
        assigned = assign(prior, log_likelihood(units, means, variance), graph, assigned)
        means = F.normalize(assigned.T @ units, dim=-1)
        variance = scatter(units, assigned, means).sum(dim=0) / total
    return assign(prior, log_likelihood(units, means, variance), graph, assigned)
