"""Task vectors of one tensor as matrices."""

from __future__ import annotations

import torch


def as_matrices(vectors: torch.Tensor) -> torch.Tensor | None:
    """`(K, rows, columns)` of task vectors `(K, *shape)`; none where the tensor is a vector.

    Kernels are flattened to one row for each output channel.
    """
    return vectors.flatten(2) if vectors.dim() > 2 else None


def orthogonalized(factor: torch.Tensor) -> torch.Tensor:
    """The nearest matrix with orthonormal columns (or rows, where there are fewer): the Procrustes solution `P Q^T` of
    the singular value decomposition `P D Q^T`."""
    left, _, right = torch.linalg.svd(factor, full_matrices=False)
    return left @ right
