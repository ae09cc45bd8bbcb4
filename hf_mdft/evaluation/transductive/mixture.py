"""What TransCLIP and StatA share: Gaussians of classes, and neighbors that vote, on embeddings of length 1.

Constants are those of the authors' code, one setting for all data.
"""

from __future__ import annotations

import torch


NEIGHBORS = 3
"""Neighbors of an image, by cosine."""

ROUNDS = 10
"""Times that the Gaussians are fitted anew."""

SWEEPS = 5
"""Updates of all assignments between two fits."""

TEMPERATURE = 50.0
"""What log-likelihoods are divided by: independent dimensions claim far more evidence than there is."""

LEAST_VARIANCE = 1e-8
"""Of a dimension in which all images are alike."""

BLOCK = 2**24
"""Cosines that are held at once."""


def neighbor_graph(units: torch.Tensor) -> torch.Tensor:
    """Sparse `(N, N)` matrix `W + W.T`, fp64, where `W[i, j]` is the cosine of i to j, one of its nearest neighbors.

    Cosines are computed in blocks of rows, so that memory grows with N, not with its square.

    Args:
        units: Embeddings of length 1, `(N, width)`.
    """
    total, count = len(units), min(NEIGHBORS, len(units) - 1)
    cosines, neighbors = [], []
    for start in range(0, total, max(1, BLOCK // total)):
        rows = torch.arange(start, min(start + max(1, BLOCK // total), total))
        block = units[rows] @ units.T
        block[rows - start, rows] = -torch.inf
        nearest = block.topk(count, dim=-1)
        cosines.append(nearest.values)
        neighbors.append(nearest.indices)
    pairs = torch.stack([torch.arange(total).repeat_interleave(count), torch.cat(neighbors).flatten()])
    weights = torch.cat(cosines).flatten().clamp(min=0).double()
    both = torch.cat([pairs, pairs.flip(0)], dim=1)
    return torch.sparse_coo_tensor(both, weights.repeat(2), (total, total), check_invariants=False).coalesce()


def log_likelihood(units: torch.Tensor, means: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """`-1/2 sum_d (f_d - mu_cd)^2 / s_cd`, `(N, C)`, without the normalisation, as in the authors' code.

    Args:
        units: Embeddings `(N, width)`.
        means: Means of the classes, `(C, width)`.
        variances: Variances, `(width,)` or `(C, width)`.
    """
    precision = (1 / variances.clamp(min=LEAST_VARIANCE)).expand_as(means)
    crossed = units @ (means * precision).T
    return crossed - 0.5 * (units.square() @ precision.T + (means.square() * precision).sum(dim=-1))


def scatter(units: torch.Tensor, assigned: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """`sum_i z_ic (f_i - mu_c)^2`, `(C, width)`, for assignments z `(N, C)`."""
    sums, sizes = assigned.T @ units, assigned.sum(dim=0).unsqueeze(-1)
    return (assigned.T @ units.square() - 2 * means * sums + sizes * means.square()).clamp(min=0)


def assign(prior: torch.Tensor, likelihood: torch.Tensor, graph: torch.Tensor, assigned: torch.Tensor) -> torch.Tensor:
    """New assignments `(N, C)`: `z_i` proportional to `exp(prior + likelihood / 50 + (W z + W.T z) / (2 k))`.

    Args:
        prior: Log-probabilities of the model, `(N, C)`.
        likelihood: Log-likelihoods under the classes' Gaussians, `(N, C)`.
        graph: Sparse matrix `(N, N)`, as `neighbor_graph` gives it.
        assigned: Assignments so far, `(N, C)`.
    """
    own = prior + likelihood / TEMPERATURE
    for _ in range(SWEEPS):
        assigned = (own + torch.sparse.mm(graph, assigned) / (2 * NEIGHBORS)).softmax(dim=-1)
    return assigned


def log_of(probabilities: torch.Tensor) -> torch.Tensor:
    """Logarithms of probabilities, finite where one is 0."""
    return probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()
