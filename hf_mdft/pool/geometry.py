"""How large task vectors are and how alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .manifest import ModelPool


def task_vector_gram(pool: ModelPool) -> torch.Tensor:
    """Inner products `(K, K)` of the experts' task vectors over the whole tower, in fp64."""
    vectors = pool.vectors()
    size = len(vectors.experts)
    gram = torch.zeros(size, size, dtype=torch.float64)
    for name in vectors.names():
        stack = vectors.stack(name).flatten(1).double()
        gram += stack @ stack.T
    return gram


@dataclass
class Geometry:
    """Sizes and directions of a pool's task vectors.

    Args:
        experts: Names of the K experts, in order.
        norms: Norms of the task vectors, relative to the base's.
        cosines: Cosines between the task vectors, `(K, K)`.
    """

    experts: list[str]
    norms: list[float]
    cosines: list[list[float]]


def geometry(pool: ModelPool) -> Geometry:
    """Norms and cosines of a pool's task vectors; downloads the weights that are not here yet."""
    gram = task_vector_gram(pool)
    norms = gram.diagonal().sqrt()
    cosines = gram / (norms[:, None] * norms[None]).clamp(min=1e-12)
    base = sum(tensor.double().square().sum().item() for _, tensor in pool.weights(None).parameters()) ** 0.5
    return Geometry(list(pool.experts), (norms / base).tolist(), cosines.tolist())
