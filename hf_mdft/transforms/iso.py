"""Isotropic merges: all directions at the same length."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..core.errors import InputError
from .base import TRANSFORMS, Transform
from .matrix import as_matrices, as_vectors, full, leading, orthogonalized, present


def shares(matrices: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """How much each expert contributes to each direction of the merge: `(K, rank)`, positive, summing to 1 over K.

    Args:
        matrices: Task matrices `(K, rows, columns)`.
        left: Left singular vectors of the merge, `(rows, rank)`.
        right: Right singular vectors of the merge, `(rank, columns)`.
    """
    amounts = torch.einsum("or,koi,ri->kr", left, matrices, right).clamp(min=0)
    return (amounts / amounts.sum(dim=0).clamp(min=torch.finfo(amounts.dtype).tiny)).nan_to_num()


def mean_of(values: torch.Tensor, there: torch.Tensor) -> float:
    """Mean of those singular values that are there; 0 without any."""
    return values[there].mean().item() if there.any() else 0.0


@TRANSFORMS.register("iso_c")
@dataclass
class IsoC(Transform):
    """Set all singular values of the summed task matrices to their mean (Iso-C, Marczak et al. 2025,
    https://huggingface.co/papers/2502.04959).

    The merged matrix is divided among the experts, direction by direction, in proportion to what each contributes, so
    that every expert can have a coefficient. Rows are scaled by K: coefficients of 1/K give the paper's merge at
    scale 1, and the mean of vectors.

    Directions that the sum lacks within rounding (of experts of low rank, LoRA) stay out, and out of the mean: the
    paper's decomposition would put arbitrary ones at full length in their place.
    """

    version = 4

    def __call__(self, name: str, vectors: torch.Tensor) -> torch.Tensor:
        matrices = as_matrices(vectors)
        if matrices is None:
            return vectors
        left, values, right = full(matrices.sum(dim=0))
        there = present(values, matrices)
        rows = torch.einsum("kr,or,ri->koi", shares(matrices, left, right) * there, left, right)
        return len(matrices) * mean_of(values, there) * as_vectors(rows, vectors)


@TRANSFORMS.register("iso_cts")
@dataclass
class IsoCts(Transform):
    """Iso-C on a common subspace, with directions of their own for every expert in place of the weakest common ones
    (Iso-CTS, Marczak et al. 2025, https://huggingface.co/papers/2502.04959).

    Common directions are divided among the experts as in `iso_c`; the own ones belong to their expert. Those that sum
    or expert lack stay out, as there. Rows are scaled by K: coefficients of 1/K give the paper's merge at scale 1.

    Args:
        common: Share of directions that are common, in (0, 1]. The default is the paper's.
    """

    version = 5
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
        own = round((len(values) - math.floor(self.common * len(values) + 1e-9)) / count)
        own = min(own, len(values) // count)  # rounded up, there may be fewer directions than that
        rank = len(values) - own * count
        there = present(values, matrices)[:rank]
        left, values, right = left[:, :rank] * there, values[:rank], right[:rank] * there[:, None]
        part = shares(matrices, left, right)
        rest = matrices - left @ (left.T @ matrices)
        own_left, own_values, own_right = leading(rest, own)
        # What is left of an expert may be nothing but rounding errors of what it was.
        own_there = present(own_values, matrices, torch.linalg.matrix_norm(matrices)[:, None])
        lefts = orthogonalized(torch.cat([left, *(own_left * own_there[:, None])], dim=1))
        rights = orthogonalized(torch.cat([right, *(own_right * own_there[..., None])], dim=0))
        belongs = part.new_zeros(count, rank + own * count)
        belongs[:, :rank] = part
        for k in range(count):
            belongs[k, rank + k * own : rank + (k + 1) * own] = 1
        size = mean_of(torch.cat([values, own_values.flatten()]), torch.cat([there, own_there.flatten()]))
        rows = torch.einsum("kr,or,ri->koi", belongs, lefts, rights)
        return count * size * as_vectors(rows, vectors)
