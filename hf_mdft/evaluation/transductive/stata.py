"""StatA."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .base import TRANSDUCTIVE
from .mixture import ROUNDS, assign, log_likelihood, log_of, neighbor_graph, scatter


ALPHA = 1.0
"""Weight of the anchor, in images."""


@TRANSDUCTIVE.register("stata")
def stata(probabilities: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """StatA (Zanella et al. 2025, https://huggingface.co/papers/2501.03729): TransCLIP with a variance for each class,
    and Gaussians that stay the nearer to an anchor the fewer images their class has.

    A class of n images moves by `n / (1 + n)` from its anchor. The paper's anchor is the class's text embedding, which
    heads of other kinds lack: here it is the mean embedding weighted by the expert's probabilities. The variance at
    the start is the mean square around the anchors (the authors' code divides by N once per block of 2,500 images).

    Args:
        probabilities: Predictions of the expert, `(N, C)`.
        features: Embeddings of the expert, `(N, width)`.
    """
    units = F.normalize(features.float(), dim=-1)
    graph, units, assigned = neighbor_graph(units), units.double(), probabilities.double()
    prior = log_of(assigned)
    means = anchor = F.normalize(assigned.T @ units, dim=-1)
    variances = anchor_variance = scatter(units, assigned, anchor).sum(dim=0) / len(units)
    for _ in range(ROUNDS):
        assigned = assign(prior, log_likelihood(units, means, variances), graph, assigned)
        sizes = assigned.argmax(dim=-1).bincount(minlength=assigned.shape[-1])
        moved = (sizes / (ALPHA + sizes)).unsqueeze(-1).double()
        means = F.normalize(torch.lerp(anchor, F.normalize(assigned.T @ units, dim=-1), moved), dim=-1)
        spread = scatter(units, assigned, means) / assigned.sum(dim=0).clamp(min=1e-12).unsqueeze(-1)
        variances = torch.lerp(anchor_variance + (anchor - means).square(), spread, moved)
    return assign(prior, log_likelihood(units, means, variances), graph, assigned)
