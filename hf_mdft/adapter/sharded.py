"""The one formula of the adapter where each process keeps a part of the task vectors.

The K task vectors are what grows with the pool: with many experts of a large tower they do not fit one device. Every
process combines its part of each parameter, the parts are gathered, and of the gradients each takes its part again: as
fully sharded training does it (ZeRO, https://huggingface.co/papers/1910.02054), but for the vectors alone. Base,
combined weights and their gradients are whole on every device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from .combine import combine, slopes
from .grouped import Part


BUCKET = 1 << 25
"""Numbers of one message, at least: 128 MiB in fp32."""


@dataclass(frozen=True)
class Shard:
    """Which part of every tensor this process keeps.

    Args:
        rank: Number of the process.
        world: Number of processes.
    """

    rank: int
    world: int

    @classmethod
    def current(cls) -> Shard | None:
        """That of this process; `None` where it is the only one."""
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return None
        return cls(dist.get_rank(), dist.get_world_size())

    def size(self, count: int) -> int:
        """Numbers of each process's part, of so many; those of the last one may be fewer."""
        return -(-count // self.world)

    def part(self, count: int) -> slice:
        """Where the part of this process lies among so many numbers."""
        size = self.size(count)
        return slice(min(self.rank * size, count), min((self.rank + 1) * size, count))


def combine_sharded(parts: Sequence[Part], coefficients: torch.Tensor, shard: Shard) -> list[torch.Tensor]:
    """`start + sum_k coefficients[row, k] * vectors[k]` of every part, whole in every process.

    Every process must call it, forward and backward, with the same parameters and coefficients. A process's gradient
    of the coefficients is that of its part of the vectors, for the losses of all processes: summed over processes, it
    is what the gradients of each process's own loss, with all vectors, sum up to.

    Args:
        parts: Parameters, each with this process's part of the task vectors, `(K, shard.part(...))`.
        coefficients: Coefficients `(rows, K)`, the same in all processes.
        shard: Which part this process keeps.

    Raises:
        ValueError: A parameter of the base is trained too.
    """
    if any(part.start.requires_grad for part in parts):
        raise ValueError("the base's own weights cannot be trained where task vectors are sharded")
    return [tensor for bucket in _buckets(parts) for tensor in _CombineSharded.apply(coefficients, bucket, shard)]


def _buckets(parts: Sequence[Part]) -> Iterator[list[Part]]:
    bucket, count = [], 0
    for part in parts:
        bucket.append(part)
        count += part.start.numel()
        if count >= BUCKET:
            yield bucket
            bucket, count = [], 0
    if bucket:
        yield bucket


class _CombineSharded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coefficients: torch.Tensor, parts: list[Part], shard: Shard) -> tuple[torch.Tensor, ...]:
        ctx.parts, ctx.shard, ctx.shape = parts, shard, coefficients.shape
        ctx.set_materialize_grads(False)
        sizes = [shard.size(part.start.numel()) for part in parts]
        own = torch.zeros(sum(sizes), device=coefficients.device)
        for part, place in zip(parts, own.split(sizes), strict=True):
            start = part.start.detach().flatten()[shard.part(part.start.numel())]
            place[: len(start)] = combine(start, part.vectors, coefficients[part.row].detach())
        gathered = own.new_empty(shard.world, len(own))
        dist.all_gather(list(gathered), own)
        columns = gathered.split(sizes, dim=1)
        return tuple(
            column.reshape(-1)[: part.start.numel()].view_as(part.start).to(part.start.dtype)
            for part, column in zip(parts, columns, strict=True)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor, None, None]:
        parts, shard = ctx.parts, ctx.shard
        sizes = [shard.size(part.start.numel()) for part in parts]
        message = torch.zeros(shard.world, sum(sizes), device=parts[0].start.device)
        for column, grad in zip(message.split(sizes, dim=1), grads, strict=True):
            if grad is not None:
                padded = torch.zeros(column.numel(), device=column.device)
                padded[: grad.numel()] = grad.flatten()
                column.copy_(padded.view_as(column))
        dist.all_reduce(message)
        total = torch.zeros(ctx.shape, device=message.device)
        for part, own in zip(parts, message[shard.rank].split(sizes), strict=True):
            total[part.row] += slopes(part.vectors, own[: part.vectors.shape[1]])
        return total, None, None
