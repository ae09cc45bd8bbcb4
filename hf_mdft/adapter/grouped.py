"""The one formula of the adapter for all parameters of a model at once, on CUDA devices.

There a step of a small model costs what its kernels cost to launch: one that combines every parameter takes the place
of hundreds, and reads the task vectors once, in half precision, without a copy in fp32.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ..core.device import sent


logger = logging.getLogger(__name__)

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
    """Whether `combine_together` takes these parts: on one CUDA device, where its kernels run and the base is not
    trained."""
    return (
        bool(parts)
        and all(
            part.start.is_cuda
            and part.start.device == parts[0].start.device
            and part.start.is_contiguous()
            and part.vectors.is_contiguous()
            and not part.start.requires_grad
            for part in parts
        )
        and kernels_run(parts[0].start.device)
    )


@functools.cache
def kernels_run(device: torch.device) -> bool:
    """Whether the kernels can be compiled and run on a device, tried once; a warning says why not."""
    numbers = torch.ones(1, ALIGNMENT, device=device)
    coefficients = torch.ones(1, 1, device=device, requires_grad=True)
    try:
        with torch.enable_grad():
            (combined,) = combine_together([Part(numbers[0], numbers, 0)], coefficients)
        (slope,) = torch.autograd.grad(combined, coefficients, torch.ones_like(combined))
        if (combined != 2).any() or slope.item() != ALIGNMENT:
            raise RuntimeError("wrong numbers")
    except Exception as error:  # no Triton, no C compiler for it, a device that is too old: whatever it raises
        reason = " ".join(str(error).split())[:160]
        slower = "each layer combines its own weights, which is slower"
        logger.warning("%s: Triton's kernels do not run there (%s); %s", device, reason, slower)
        return False
    return True


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
        from . import kernels

        ctx.parts, ctx.shape = parts, coefficients.shape
        ctx.set_materialize_grads(False)
        combined = [torch.empty_like(part.start) for part in parts]
        start, vectors, aligned = parts[0].kind
        kinds = {"START": kernels.name_of(start), "VECTORS": kernels.name_of(vectors), "ALIGNED": aligned}
        tiles = _tiles(tuple((part.start.numel(), part.row) for part in parts), len(coefficients), coefficients.device)
        addresses = _addresses(coefficients.device, [p.start for p in parts], [p.vectors for p in parts], combined)
        with torch.cuda.device(coefficients.device):
            kernels.combine_kernel[(len(tiles.part),)](
                tiles.part, tiles.first, tiles.sizes, tiles.rows, *addresses, coefficients.float().contiguous(),
                K=ctx.shape[1], BLOCK=BLOCK, **kinds,
            )  # fmt: skip
        return tuple(combined)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor, None]:
        from . import kernels

        reached = [(p, grad.contiguous()) for p, grad in zip(ctx.parts, grads, strict=True) if grad is not None]
        parts, grads = zip(*reached, strict=True)
        (rows, count), device = ctx.shape, parts[0].start.device
        tiles = _tiles(tuple((part.start.numel(), part.row) for part in parts), rows, device)
        start, vectors, aligned = parts[0].kind
        aligned = aligned and all(grad.data_ptr() % ALIGNMENT == 0 for grad in grads)
        kinds = {"START": kernels.name_of(start), "VECTORS": kernels.name_of(vectors), "ALIGNED": aligned}
        products = torch.empty(len(tiles.part), count, dtype=torch.float32, device=device)
        total = torch.empty(rows, count, dtype=torch.float32, device=device)
        columns = 1 << (count - 1).bit_length()  # a power of two
        addresses = _addresses(device, grads, [part.vectors for part in parts])
        with torch.cuda.device(device):
            kernels.product_kernel[(len(tiles.part),)](
                tiles.part, tiles.first, tiles.sizes, *addresses, products,
                K=count, AT_ONCE=min(columns, 8), BLOCK=BLOCK, **kinds,
            )  # fmt: skip
            of_row = products, tiles.of_row, total
            kernels.sum_kernel[(rows,)](*of_row, K=count, COLUMNS=columns, BLOCK=max(2048 // columns, 1))
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
