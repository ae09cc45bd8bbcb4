"""The one formula of the adapter for all parameters of a model at once, on CUDA devices.

There a step of a small model costs what its kernels cost to launch: one that combines every parameter takes the place
of hundreds, and reads the task vectors once, in half precision, without a copy in fp32.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ..core.device import sent


try:
    import triton
    import triton.language as tl
except ImportError:  # not part of every build of PyTorch
    triton = None

BLOCK = 1024
"""Numbers of a parameter that one program combines."""

ALIGNMENT = 16
"""Numbers of which sizes, and bytes of which addresses, are multiples where vectors are read 16 bytes at a time."""


@dataclass(frozen=True)
class Part:
    """One parameter to combine.

    Args:
        start: Parameter of the base, `(*shape)`.
        vectors: Task vectors `(K, *shape)`.
        row: Row of the coefficients.
    """

    start: torch.Tensor
    vectors: torch.Tensor
    row: int

    @property
    def kind(self) -> tuple[torch.dtype, torch.dtype, bool]:
        """Parts of one kind share a kernel: dtypes, and whether everything is aligned."""
        addresses = (self.start.data_ptr(), self.vectors.data_ptr())
        aligned = self.start.numel() % ALIGNMENT == 0 and all(address % ALIGNMENT == 0 for address in addresses)
        return self.start.dtype, self.vectors.dtype, aligned


def can_combine_together(parts: Sequence[Part]) -> bool:
    """Whether `combine_together` takes these parts: on one CUDA device, with Triton, where the base is not trained."""
    return (
        triton is not None
        and bool(parts)
        and all(
            part.start.is_cuda
            and part.start.device == parts[0].start.device
            and part.start.is_contiguous()
            and part.vectors.is_contiguous()
            and not part.start.requires_grad
            for part in parts
        )
    )


def combine_together(parts: Sequence[Part], coefficients: torch.Tensor) -> list[torch.Tensor]:
    """`start + sum_k coefficients[row, k] * vectors[k]` of every part, summed in fp32 in the order of k, returned in
    the dtype of its `start`.

    Every sum has a fixed order, that of the gradient too: the same inputs give the same bits.

    Args:
        parts: Parameters on one device, each with K task vectors.
        coefficients: Coefficients `(rows, K)`, on that device.
    """
    found: list[torch.Tensor | None] = [None] * len(parts)
    kinds = [part.kind for part in parts]
    for kind in dict.fromkeys(kinds):
        # Those of one row stand together, so that a row's gradient is a sum over neighbours.
        chosen = sorted((n for n, own in enumerate(kinds) if own == kind), key=lambda number: parts[number].row)
        combined = _CombineTogether.apply(coefficients, [parts[number] for number in chosen])
        for number, tensor in zip(chosen, combined, strict=True):
            found[number] = tensor
    return found


class _CombineTogether(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coefficients: torch.Tensor, parts: list[Part]) -> tuple[torch.Tensor, ...]:
        ctx.parts, ctx.shape = parts, coefficients.shape
        ctx.set_materialize_grads(False)
        combined = [torch.empty_like(part.start) for part in parts]
        start, vectors, aligned = parts[0].kind
        tiles = _tiles(tuple((part.start.numel(), part.row) for part in parts), len(coefficients), coefficients.device)
        addresses = _addresses(coefficients.device, [p.start for p in parts], [p.vectors for p in parts], combined)
        with torch.cuda.device(coefficients.device):
            _combine_kernel[(len(tiles.part),)](
                tiles.part, tiles.first, tiles.sizes, tiles.rows, *addresses, coefficients.float().contiguous(),
                START=_name(start), VECTORS=_name(vectors), K=ctx.shape[1], ALIGNED=aligned, BLOCK=BLOCK,
            )  # fmt: skip
        return tuple(combined)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor, None]:
        reached = [(p, grad.contiguous()) for p, grad in zip(ctx.parts, grads, strict=True) if grad is not None]
        parts, grads = zip(*reached, strict=True)
        (rows, count), device = ctx.shape, parts[0].start.device
        tiles = _tiles(tuple((part.start.numel(), part.row) for part in parts), rows, device)
        start, vectors, aligned = parts[0].kind
        aligned = aligned and all(grad.data_ptr() % ALIGNMENT == 0 for grad in grads)
        products = torch.empty(len(tiles.part), count, dtype=torch.float32, device=device)
        total = torch.empty(rows, count, dtype=torch.float32, device=device)
        columns = triton.next_power_of_2(count)
        addresses = _addresses(device, grads, [part.vectors for part in parts])
        with torch.cuda.device(device):
            _product_kernel[(len(tiles.part),)](
                tiles.part, tiles.first, tiles.sizes, *addresses, products, START=_name(start), VECTORS=_name(vectors),
                K=count, AT_ONCE=min(columns, 8), ALIGNED=aligned, BLOCK=BLOCK,
            )  # fmt: skip
            of_row = products, tiles.of_row, total
            _sum_kernel[(rows,)](*of_row, K=count, COLUMNS=columns, BLOCK=max(2048 // columns, 1))
        return total, None


@dataclass(frozen=True)
class _Tiles:
    """Which numbers each program combines.

    Args:
        part, first: Number of the part, and of its first number, for each program.
        sizes, rows: Numbers of every part, and its row of the coefficients.
        of_row: Programs of row r: from `of_row[r]` to `of_row[r + 1]`.
    """

    part: torch.Tensor
    first: torch.Tensor
    sizes: torch.Tensor
    rows: torch.Tensor
    of_row: torch.Tensor


@functools.lru_cache(maxsize=8)
def _tiles(parts: tuple[tuple[int, int], ...], rows: int, device: torch.device) -> _Tiles:
    """Programs for parts with so many numbers and such rows, which do not decrease."""
    sizes, row = torch.tensor(parts, dtype=torch.long).unbind(dim=1)
    counts = (sizes + BLOCK - 1) // BLOCK
    part = torch.arange(len(parts)).repeat_interleave(counts)
    before = counts.cumsum(dim=0) - counts
    first = (torch.arange(len(part)) - before[part]) * BLOCK
    of_row = torch.zeros(rows + 1, dtype=torch.long)
    of_row[1:] = torch.bincount(row[part], minlength=rows).cumsum(dim=0)
    return _Tiles(*(values.contiguous().to(device) for values in (part.int(), first, sizes, row.int(), of_row)))


def _addresses(device: torch.device, *tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Addresses of tensors, a row for each list."""
    numbers = [[tensor.data_ptr() for tensor in row] for row in tensors]
    return sent(torch.tensor(numbers, dtype=torch.int64), device)


def _name(dtype: torch.dtype) -> Any:
    """Triton's name of a dtype."""
    return getattr(tl, {"float": "float32"}.get(name := str(dtype).removeprefix("torch."), name))


if triton is not None:

    @triton.jit
    def _pointer(address, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
        found = address.to(tl.pointer_type(TYPE))
        return tl.multiple_of(found, 16) if ALIGNED else found

    @triton.jit
    def _size(size, ALIGNED: tl.constexpr):
        return tl.multiple_of(size, 16) if ALIGNED else size

    @triton.jit
    def _combine_kernel(
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
    def _product_kernel(
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
    def _sum_kernel(products, of_row, total, K: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
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
