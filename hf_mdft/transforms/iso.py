"""Isotropic merges: all directions at the same length."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..core.errors import InputError
from .base import TRANSFORMS, Transform
from .matrix import as_matrices, as_vectors, full, leading, orthogonalized


def shares(matrices: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """How much each expert contributes to each direction of the merge: `(K, rank)`, positive, summing to 1 over K.

    Args:
        matrices: Task matrices `(K, rows, columns)`.
        left: Left singular vectors of the merge, `(rows, rank)`.
        right: Right singular vectors of the merge, `(rank, columns)`.
    """
    amounts = torch.einsum("or,koi,ri->kr", left, matrices, right).clamp(min=0)
    return (amounts / amounts.sum(dim=0).clamp(min=torch.finfo(amounts.dtype).tiny)).nan_to_num()


@TRANSFORMS.register("iso_c")
@dataclass
class IsoC(Transform):
    """Set all singular values of the summed task matrices to their mean (Iso-C, Marczak et al. 2025,
    https://huggingface.co/papers/2502.04959).

    The merged matrix is divided among the experts, direction by direction, in proportion to what each contributes, so
    that every expert can have a coefficient. Rows are scaled by K: coefficients of 1/K give the paper's merge at
    scale 1, and the mean of vectors.
    """

    version = 3

    def __call__(self, name: str, vectors: torch.Tensor) -> torch.Tensor:
        matrices = as_matrices(vectors)
        if matrices is None:
            return vectors
        left, values, right = full(matrices.sum(dim=0))
        rows = torch.einsum("kr,or,ri->koi", shares(matrices, left, right), left, right)
        return len(matrices) * values.mean().item() * as_vectors(rows, vectors)


@TRANSFORMS.register("iso_cts")
@dataclass
class IsoCts(Transform):
    """Iso-C on a common subspace, with directions of their own for every expert in place of the weakest common ones
    (Iso-CTS, Marczak et al. 2025, https://huggingface.co/papers/2502.04959).

    Common directions are divided among the experts as in `iso_c`; the own ones belong to their expert. Rows are scaled
    by K: coefficients of 1/K give the paper's merge at scale 1.

    Args:
        common: Share of directions that are common, in (0, 1]. The default is the paper's.
    """

    version = 3
    common: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.common <= 1:
            raise InputError(f"transform '{self.name}': common must lie in (0, 1], got {self.common}")

    def __call__(self, name: str, vectors: torch.Tensor) -> torch.Tensor:
        matrices = as_matrices(vectors)
        if matrices is None:
            return vectors
        count = len(matrices)
        left, values, right = full(matrices.sum(dim=0))
        own = (len(values) - math.floor(self.common * len(values) + 1e-9)) // count
        rank = len(values) - own * count
        left, right = left[:, :rank], right[:rank]
        part = shares(matrices, left, right)
        rest = matrices - left @ (left.T @ matrices)
        own_left, own_values, own_right = leading(rest, own)
        lefts = orthogonalized(torch.cat([left, *own_left], dim=1))
        rights = orthogonalized(torch.cat([right, *own_right], dim=0))
        belongs = part.new_zeros(count, rank + own * count)
        belongs[:, :rank] = part
        for k in range(count):
            belongs[k, rank + k * own : rank + (k + 1) * own] = 1
        size = torch.cat([values[:rank], own_values.flatten()]).mean()
        rows = torch.einsum("kr,or,ri->koi", belongs, lefts, rights)
        return count * size.item() * as_vectors(rows, vectors)
