"""The one formula of the adapter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable


BLOCK = 1 << 19
"""Numbers that are widened to fp32 at a time: they stay in the processor's cache."""
ACCELERATOR_BLOCK = 1 << 25
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
        # Not as a saved tensor: it is a file's view that nobody writes to, and none of the graph's business.
        ctx.vectors = vectors
        combined = torch.empty(start.numel(), dtype=torch.float32, device=start.device)
        begin, weights = start.flatten(), coefficients.float()
        with torch.autocast(start.device.type, enabled=False):
            for part, block in _blocks(vectors):
                torch.addmv(begin[part].float(), block.t(), weights, out=combined[part])
        return combined.view(start.shape).to(start.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, None, torch.Tensor | None]:
        total = None
        if ctx.needs_input_grad[2]:
            flat = grad.flatten()
            total = torch.zeros(len(ctx.vectors), dtype=torch.float32, device=grad.device)
            with torch.autocast(grad.device.type, enabled=False):
                for part, block in _blocks(ctx.vectors):
                    total.addmv_(block, flat[part].float())
        return grad if ctx.needs_input_grad[0] else None, None, total


def _blocks(vectors: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Where a block lies, and the block in fp32, `(K, columns)`: gone when the next one is asked for."""
    rows = vectors.flatten(1)
    if rows.dtype == torch.float32:
        yield slice(None), rows
        return
    count, columns = rows.shape
    size = min(columns, max((BLOCK if rows.device.type == "cpu" else ACCELERATOR_BLOCK) // count, 1))
    scratch = torch.empty(count, size, dtype=torch.float32, device=rows.device)
    for first in range(0, columns, size or 1):
        part = slice(first, first + size)
        yield part, scratch[:, : columns - first].copy_(rows[:, part])
