"""The one formula of the adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable


BLOCK = {"cpu": 1 << 18}
"""Numbers that are widened to fp32 at a time, by device type: they stay in the processor's cache."""
LARGEST_BLOCK = 1 << 25
"""On accelerators, where starting a kernel is what costs."""


def combine(
    starts: Sequence[torch.Tensor], stacks: Sequence[torch.Tensor], coefficients: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """`start + sum_k coefficients[k] * vectors[k]` of each tensor, summed in fp32 whatever the autocast, returned in
    `start`'s dtype.

    One matrix-vector product forward and one backward over K stacked vectors: both only read the stack once, and the
    graph holds neither a copy of it nor a wider one. Tensors that are given together are combined one after the other
    before the forward pass, and their gradients reduced after the backward pass: the stacks are larger than any
    cache, and read in between they would push the activations out of it.

    Args:
        starts: `(*shape)` each.
        stacks: Task vectors `(K, *shape)` each, never differentiated, of any floating dtype.
        coefficients: `(K,)` each.
    """
    if torch.compiler.is_compiling():  # the compiler fuses each sum into one pass by itself
        return tuple(map(_plain, starts, stacks, coefficients))
    return _Combine.apply(stacks, *starts, *coefficients)


def _plain(start: torch.Tensor, vectors: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    columns = coefficients.float().view(-1, *[1] * start.dim())
    return (start.float() + (vectors.float() * columns).sum(dim=0)).to(start.dtype)


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, stacks: Sequence[torch.Tensor], *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        # Not as saved tensors: they are files' views that nobody writes to, and none of the graph's business.
        ctx.stacks = stacks
        count = len(stacks)
        return tuple(map(_combined, tensors[:count], stacks, tensors[count:]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[Any, ...]:
        needed, count = ctx.needs_input_grad[1:], len(ctx.stacks)
        starts = [grad if wanted else None for grad, wanted in zip(grads, needed[:count], strict=True)]
        coefficients = [
            _reduced(grad, stack) if wanted and grad is not None else None
            for grad, stack, wanted in zip(grads, ctx.stacks, needed[count:], strict=True)
        ]
        return None, *starts, *coefficients


def _combined(start: torch.Tensor, vectors: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    combined = torch.empty(start.numel(), dtype=torch.float32, device=start.device)
    begin, weights = start.flatten(), coefficients.float()
    with torch.autocast(start.device.type, enabled=False):
        for part, block in _blocks(vectors):
            torch.addmv(begin[part].float(), block.t(), weights, out=combined[part])
    return combined.view(start.shape).to(start.dtype)


def _reduced(grad: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    flat = grad.flatten()
    total = torch.zeros(len(vectors), dtype=torch.float32, device=grad.device)
    with torch.autocast(grad.device.type, enabled=False):
        for part, block in _blocks(vectors):
            total.addmv_(block, flat[part].float())
    return total


def _blocks(vectors: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Where a block lies, and the block in fp32, `(K, columns)`: gone when the next one is asked for."""
    rows = vectors.flatten(1)
    if rows.dtype == torch.float32:
        yield slice(None), rows
        return
    count, columns = rows.shape
    size = min(columns, max(BLOCK.get(rows.device.type, LARGEST_BLOCK) // count, 1))
    scratch = torch.empty(count, size, dtype=torch.float32, device=rows.device)
    for first in range(0, columns, size or 1):
        part = slice(first, first + size)
        yield part, scratch[:, : columns - first].copy_(rows[:, part])
