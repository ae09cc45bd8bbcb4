"""The one formula of the adapter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable


BLOCK = 1 << 19
"""Numbers that are widened to fp32 at a time: they stay in the processor's cache."""
ACCELERATOR_BLOCK = 1 << 25
"""The same on accelerators, where the number of kernels is what costs."""


def combine(start: torch.Tensor, vectors: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """`start + sum_k coefficients[k] * vectors[k]`, summed in fp32 whatever the autocast, returned in `start`'s dtype.

    One pass forward and one backward over the K stacked vectors: both only read the stack once, and the graph holds
    neither a copy of it nor a wider one. Where the forward pass is fused (half-precision vectors, x86 processors), the
    finished sum is rounded to the vectors' dtype before `start` is added: an error no larger than that of storing the
    vectors.

    Args:
        start: Parameter of the base, `(*shape)`.
        vectors: Task vectors `(K, *shape)`, never differentiated, of any floating dtype.
        coefficients: Coefficients `(K,)`.
    """
    if torch.compiler.is_compiling():  # the compiler fuses the sum into one pass by itself
        columns = coefficients.float().view(-1, *[1] * start.dim())
        return (start.float() + (vectors.float() * columns).sum(dim=0)).to(start.dtype)
    return _Combine.apply(start, vectors, coefficients)


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, start: torch.Tensor, vectors: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
        # Not as a saved tensor: it is a view of a file, never differentiated and never written to.
        ctx.vectors = vectors
        begin, weights = start.flatten(), coefficients.float()
        with torch.autocast(start.device.type, enabled=False):
            if _is_fused(vectors):
                combined = _fused_sum(vectors, weights).float().add_(begin)
            else:
                combined = torch.empty(start.numel(), dtype=torch.float32, device=start.device)
                for part, block in _blocks(vectors):
                    torch.addmv(begin[part].float(), block.t(), weights, out=combined[part])
        return combined.view(start.shape).to(start.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, None, torch.Tensor | None]:
        total = slopes(ctx.vectors, grad.flatten()) if ctx.needs_input_grad[2] else None
        return grad if ctx.needs_input_grad[0] else None, None, total


def slopes(vectors: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """Gradient of the coefficients `(K,)`, in fp32, from that of the flat sum: its products with the task vectors."""
    total = torch.zeros(len(vectors), dtype=torch.float32, device=grad.device)
    with torch.autocast(grad.device.type, enabled=False):
        for part, block in _blocks(vectors):
            total.addmv_(block, grad[part].float())
    return total


def _is_fused(vectors: torch.Tensor) -> bool:
    half = vectors.dtype in (torch.float16, torch.bfloat16)
    return half and vectors.device.type == "cpu" and "fbgemm" in torch.backends.quantized.supported_engines


def _fused_sum(vectors: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """`sum_k weights[k] * vectors[k]`, flat, as a bag of embeddings: the one kernel on a processor that widens, weighs
    and adds up half-precision numbers in registers, so that memory is all that it waits for.

    Row `r` of the result is a bag of row `r` of every vector. The kernel wants weights in the vectors' dtype: each row
    enters the bag twice, with the weight rounded and with what rounding left, the second time from the cache.
    """
    count, shape = len(vectors), vectors.shape[1:]
    rows = shape[0] if len(shape) > 1 else 1
    rounded = weights.to(vectors.dtype)
    pairs = torch.stack((rounded, (weights - rounded.float()).to(vectors.dtype)), dim=1).flatten()
    bags = torch.arange(count * rows, dtype=torch.int32).view(count, rows).t().repeat_interleave(2, dim=1)
    table = vectors.reshape(count * rows, -1)
    return F.embedding_bag(bags, table, mode="sum", per_sample_weights=pairs.repeat(rows, 1)).flatten()


def _blocks(vectors: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Where a block lies, and the block in fp32, `(K, columns)`: gone when the next one is made."""
    rows = vectors.reshape(len(vectors), -1)
    if rows.dtype == torch.float32:
        yield slice(None), rows
        return
    count, columns = rows.shape
    size = min(columns, max((BLOCK if rows.device.type == "cpu" else ACCELERATOR_BLOCK) // count, 1))
    scratch = torch.empty(count, size, dtype=torch.float32, device=rows.device)
    for first in range(0, columns, size or 1):
        part = slice(first, first + size)
        yield part, scratch[:, : columns - first].copy_(rows[:, part])
