"""The one formula of the adapter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable


BLOCK = {"cpu": 1 << 15}
"""Columns that are widened to fp32 at a time, by device type: K rows of a block stay in the processor's cache."""
LARGEST_BLOCK = 1 << 22
"""On accelerators, where starting a kernel is what costs."""


def combine(start: torch.Tensor, vectors: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """`start + sum_k coefficients[k] * vectors[k]`, summed in fp32 whatever the autocast, returned in `start`'s dtype.

    One matrix-vector product forward and one backward over the K stacked vectors: both only read the stack once, and
    the graph holds neither a copy of it nor a wider one.

    Args:
        start: `(*shape)`.
        vectors: `(K, *shape)`, never differentiated, of any floating dtype.
        coefficients: `(K,)`.
    """
    if torch.compiler.is_compiling():  # the compiler fuses the sum into one pass by itself
        columns = coefficients.float().view(-1, *[1] * start.dim())
        return (start.float() + (vectors.float() * columns).sum(dim=0)).to(start.dtype)
    return _Combine.apply(start, vectors, coefficients)


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, start: torch.Tensor, vectors: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(vectors)
        ctx.dtype = coefficients.dtype
        combined = torch.empty(start.numel(), dtype=torch.float32, device=start.device)
        begin, weights = start.detach().flatten(), coefficients.float()
        with torch.autocast(start.device.type, enabled=False):
            for part, block in _blocks(vectors):
                torch.addmv(begin[part].float(), block.t(), weights, out=combined[part])
        return combined.view(start.shape).to(start.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, None, torch.Tensor | None]:
        (vectors,) = ctx.saved_tensors
        total = None
        if ctx.needs_input_grad[2]:
            flat = grad.flatten()
            total = torch.zeros(len(vectors), dtype=torch.float32, device=grad.device)
            with torch.autocast(grad.device.type, enabled=False):
                for part, block in _blocks(vectors):
                    total.addmv_(block, flat[part].float())
            total = total.to(ctx.dtype)
        return grad if ctx.needs_input_grad[0] else None, None, total


def _blocks(vectors: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Where a block lies, and the block in fp32, `(K, columns)`."""
    rows = vectors.flatten(1)
    size = max(rows.shape[1], 1) if rows.dtype == torch.float32 else BLOCK.get(rows.device.type, LARGEST_BLOCK)
    for first in range(0, rows.shape[1], size):
        part = slice(first, first + size)
        yield part, rows[:, part].float()
