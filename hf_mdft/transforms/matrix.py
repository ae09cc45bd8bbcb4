"""Task vectors of one tensor as matrices, and what is computed of these: leading singular vectors, polar factors.

A full singular value decomposition of every matrix of every expert would be most of what preparing task vectors costs.
The eigenvectors of the smaller Gram matrix take a third of its time, but squaring costs digits: in fp32, directions
below a tenth of the largest are not known well. Both functions below take from the eigenvectors what they know well,
and the rest from the matrix itself, so that they are as exact as the decomposition.
"""

from __future__ import annotations

import torch

from ..core.device import best_device


RESOLVED = 0.01
"""Eigenvalues of a Gram matrix above this share of the largest are taken as they are: their directions are known to a
hundred times the rounding error."""

LEAK = 0.003
"""Largest first-order correction of a subspace; what it leaves is the square of this."""


def as_matrices(vectors: torch.Tensor) -> torch.Tensor | None:
    """`(K, rows, columns)` of task vectors `(K, *shape)`, on the GPU where there is one; none where the tensor is a
    vector.

    Sides of length 1 count as none (a class token `(1, 1, width)` is a vector, position embeddings `(1, N, width)` are
    a matrix), and kernels are flattened to one row for each output channel. (The papers' code on TSV and Iso averages
    tensors of other than two sides.) `as_vectors` is the way back.
    """
    sides = [side for side in vectors.shape[1:] if side != 1]
    if len(sides) < 2:
        return None
    vectors = vectors.reshape(len(vectors), sides[0], -1)
    device = best_device()
    # Other accelerators lack decompositions or double precision.
    return vectors.to(device if device.type == "cuda" else vectors.device)


def as_vectors(matrices: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """`(K, rows, columns)` in the shape, dtype and place of the task vectors that they were made of."""
    return matrices.reshape(vectors.shape).to(vectors)


def full(matrices: torch.Tensor, rank: int | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first `rank` (default: all) singular triplets by a full decomposition; shapes as in `leading`."""
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    return left[..., :rank], values[..., :rank], right[..., :rank, :]


def present(values: torch.Tensor, matrices: torch.Tensor, size: torch.Tensor | None = None) -> torch.Tensor:
    """Which singular values `(..., rank)` of `(..., rows, columns)` are more than rounding errors of numbers of this
    size, `(..., 1)`; the default is the first value, the largest."""
    size = values[..., :1] if size is None else size
    return values > torch.finfo(values.dtype).eps * max(matrices.shape[-2:]) * size


def leading(matrices: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The `rank` largest singular values and their vectors.

    Eigenvectors of the Gram matrix span a subspace slightly larger than asked for. One step of perturbation theory
    turns it by what the matrix itself says about directions outside (as in the refinement of Ogita and Aishima 2018,
    https://doi.org/10.1007/s13160-018-0310-3), and a small decomposition inside it (Rayleigh-Ritz) gives the
    triplets. Matrices for which that is not exact enough (the rank-th value far below a hundredth of the first), and
    ranks for which it is not faster, are decomposed in full.

    Args:
        matrices: `(..., rows, columns)`.
        rank: How many, from 0 to the smaller side.

    Returns:
        Left vectors `(..., rows, rank)`, values `(..., rank)` in descending order and right vectors
        `(..., rank, columns)`. Vectors are orthonormal also where values are zero.
    """
    rows, columns = matrices.shape[-2:]
    if rows < columns:
        left, values, right = leading(matrices.mT, rank)
        return right.mT, values, left.mT
    width = rank + rank // 4 + 8
    if 2 * width > columns or not rank:
        return full(matrices, rank)
    basis, exact = _subspace(matrices, rank, width)
    images, small = torch.linalg.qr(matrices @ basis)
    left, values, right = full(small, rank)
    # All of a matrix of low rank lies in the subspace, whatever the Gram matrix knows.
    outside = torch.linalg.matrix_norm(matrices - images @ (small @ basis.mT))
    exact |= ~present(torch.stack([values[..., 0], outside], dim=-1), matrices)[..., 1]
    found = images @ left, values, right @ basis.mT
    if not exact.all():
        for part, again in zip(found, full(matrices[~exact], rank), strict=True):
            part[~exact] = again
    return found


def _subspace(matrices: torch.Tensor, rank: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal `(..., columns, width)` that hold the first `rank` right vectors, and whether they do: `(...)`."""
    squares, vectors = (part.flip(-1) for part in _squares(matrices))
    inside, outside = vectors[..., :width], vectors[..., width:]
    images = matrices @ inside[..., :rank]
    gaps = images.square().sum(dim=-2)[..., None, :] - squares[..., width:, None]
    leak = outside.mT @ (matrices.mT @ images) / gaps.clamp(min=torch.finfo(gaps.dtype).tiny)
    exact = leak.abs().amax(dim=(-2, -1)) < LEAK
    turned = inside[..., :rank] + outside @ torch.where(exact[..., None, None], leak, 0)
    return torch.linalg.qr(torch.cat([turned, inside[..., rank:]], dim=-1)).Q, exact


def _squares(matrices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared singular values `(..., columns)`, ascending, and right singular vectors `(..., columns, columns)`, as
    exact as the Gram matrix knows them."""
    gram = matrices.mT @ matrices
    try:
        return torch.linalg.eigh(gram)
    except torch.linalg.LinAlgError:  # LAPACK's divide and conquer can fail in fp32 where many eigenvalues are equal
        squares, vectors = torch.linalg.eigh(gram.double())
        return squares.to(gram), vectors.to(gram)


def orthogonalized(factor: torch.Tensor) -> torch.Tensor:
    """The nearest matrix with orthonormal columns (or rows, where there are fewer): the polar factor `P Q^T` of the
    singular value decomposition `P D Q^T`, the Procrustes solution.

    Directions that the factor lacks (zero in `D` within rounding) stay out: `P` and `Q` have none of them, which
    makes the polar factor unique (Higham 2008, Functions of Matrices, theorem 8.3). Else arbitrary vectors would
    take their place.

    Eigenvectors of the Gram matrix turn the factor's columns into orthogonal ones. Long ones need a new length only;
    short ones are decomposed by themselves.

    Args:
        factor: `(rows, columns)`.
    """
    if factor.shape[0] < factor.shape[1]:
        return orthogonalized(factor.mT).mT
    some = factor.any(dim=0)
    if not some.all():
        found = torch.zeros_like(factor)
        if some.any():
            found[:, some] = orthogonalized(factor[:, some])
        return found
    squares, vectors = _squares(factor)
    short = int((squares <= RESOLVED * squares[-1]).sum())
    strong = factor @ vectors[:, short:]
    strong = strong / strong.norm(dim=0)
    # In double precision, so that what is nothing but rounding errors of the strong ones goes with them.
    weak = (factor.double() @ vectors[:, :short].double()).to(factor)
    left, values, right = full(weak - strong @ (strong.mT @ weak))
    kept = values > torch.finfo(values.dtype).eps * squares[-1].clamp(min=0).sqrt()
    return torch.cat([left * kept @ right, strong], dim=1) @ vectors.mT
