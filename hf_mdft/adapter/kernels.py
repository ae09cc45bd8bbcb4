"""What `combine_together` runs on CUDA devices. (Imports Triton: not to be imported before it is used.)"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl


def name_of(dtype: torch.dtype) -> Any:
    """Triton's name of a dtype."""
    return getattr(tl, str(dtype).removeprefix("torch."))


@triton.jit
def _pointer(address, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    found = address.to(tl.pointer_type(TYPE))
    return tl.multiple_of(found, 16) if ALIGNED else found


@triton.jit
def _size(size, ALIGNED: tl.constexpr):
    return tl.multiple_of(size, 16) if ALIGNED else size


@triton.jit
def combine_kernel(
    part_of, first_of, sizes, rows, starts, vectors, outs, coefficients,
    START: tl.constexpr, VECTORS: tl.constexpr, K: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    part = tl.load(part_of + tile)
    size = _size(tl.load(sizes + part), ALIGNED)
    start = _pointer(tl.load(starts + part), START, ALIGNED)
    vector = _pointer(tl.load(vectors + part), VECTORS, ALIGNED)
    out = _pointer(tl.load(outs + part), START, ALIGNED)
    own = coefficients + tl.load(rows + part) * K
    at = tl.multiple_of(tl.load(first_of + tile), BLOCK) + tl.arange(0, BLOCK)
    inside = at < size
    total = tl.load(start + at, mask=inside, other=0.0).to(tl.float32)
    for k in range(K):
        total += tl.load(own + k) * tl.load(vector + k * size + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, total.to(START), mask=inside)


@triton.jit
def product_kernel(
    part_of, first_of, sizes, grads, vectors, products,
    START: tl.constexpr, VECTORS: tl.constexpr, K: tl.constexpr, AT_ONCE: tl.constexpr, ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Scalar product of a part's gradient with each of its vectors, within one tile."""
    tile = tl.program_id(0)
    part = tl.load(part_of + tile)
    size = _size(tl.load(sizes + part), ALIGNED)
    grad = _pointer(tl.load(grads + part), START, ALIGNED)
    vector = _pointer(tl.load(vectors + part), VECTORS, ALIGNED)
    at = tl.multiple_of(tl.load(first_of + tile), BLOCK) + tl.arange(0, BLOCK)
    inside = at < size
    slope = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
    for group in range(0, K, AT_ONCE):
        k = group + tl.arange(0, AT_ONCE)
        some = inside[None, :] & (k < K)[:, None]
        values = tl.load(vector + k[:, None] * size + at[None, :], mask=some, other=0.0).to(tl.float32)
        tl.store(products + tile * K + k, tl.sum(values * slope[None, :], axis=1), mask=k < K)


@triton.jit
def sum_kernel(products, of_row, total, K: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Sum over the tiles of a row."""
    row = tl.program_id(0)
    k = tl.arange(0, COLUMNS)
    found = tl.zeros((BLOCK, COLUMNS), dtype=tl.float32)
    over = tl.load(of_row + row + 1)
    for first in range(tl.load(of_row + row), over, BLOCK):
        tile = first + tl.arange(0, BLOCK)
        some = (tile < over)[:, None] & (k < K)[None, :]
        found += tl.load(products + tile[:, None] * K + k[None, :], mask=some, other=0.0)
    tl.store(total + row * K + k, tl.sum(found, axis=0), mask=k < K)
