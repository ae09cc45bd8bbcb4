"""Task singular vectors that do not interfere."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .base import TRANSFORMS, Transform
from .matrix import as_matrices, as_vectors, leading, orthogonalized, present


@TRANSFORMS.register("tsv")
@dataclass
class Tsv(Transform):
    """Keep the largest 1/K of every task matrix's singular components, and turn the singular vectors of all experts
    together into orthonormal ones (TSV-M, Gargiulo et al. 2025, https://huggingface.co/papers/2412.00081).

    An expert of lower rank (a LoRA) has fewer components, which leaves more room to the others.

    Every expert keeps its own components, so that it can have a coefficient. Rows are scaled by K: coefficients of 1/K
    give the paper's merge, the sum of task matrices and the mean of vectors.
    """

    version = 3

    def __call__(self, name: str, vectors: torch.Tensor) -> torch.Tensor:
        matrices = as_matrices(vectors)
        if matrices is None:
            return vectors
        count = len(matrices)
        rank = max(1, min(matrices.shape[1:]) // count)
        left, values, right = leading(matrices, rank)
        there = present(values, matrices)
        lefts = orthogonalized(torch.cat(list(left * there[:, None]), dim=1)).split(rank, dim=1)
        rights = orthogonalized(torch.cat(list(right * there[..., None]), dim=0)).split(rank, dim=0)
        rows = [(u * s) @ v for u, s, v in zip(lefts, values, rights, strict=True)]
        return count * as_vectors(torch.stack(rows), vectors)
