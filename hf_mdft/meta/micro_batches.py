"""One step in several micro-batches, on several processes."""

from __future__ import annotations

import math
import sys
from typing import Any

import torch
from accelerate import Accelerator

from ..pool import ModelPool
from .arguments import MdftTrainingArguments


TOKENS_PER_MICRO_BATCH = 3200
"""On a CPU: 64 ViT-B/32 images, of 50 tokens each, take no longer than 128 and less memory; 16 take longer."""


def micro_batch_size(tokens: int, device: torch.device) -> int:
    """How many images should go through a tower together: as many as make `TOKENS_PER_MICRO_BATCH` on a CPU, any
    number elsewhere.

    Args:
        tokens: Positions at which the tower computes for one image.
        device: Device of the tower.
    """
    return max(TOKENS_PER_MICRO_BATCH // tokens, 1) if device.type == "cpu" else sys.maxsize


def micro_batch_of(pool: ModelPool, shape: tuple[int, ...], args: MdftTrainingArguments) -> int:
    """How many images a pool's towers see in one pass, by the options or by default; `shape` is that of an image."""
    tokens = pool.architecture.tokens_per_image(pool.config, shape)
    return args.images_per_micro_batch or micro_batch_size(tokens, args.device)


def micro_batches(batch: dict[str, Any], tasks: int, limit: int) -> list[dict[str, Any]]:
    """A batch in even parts of whole tasks, because the loss is a sum over tasks.

    Args:
        batch: One row for each image; `task` holds their tasks' numbers, every task as often, the rest are tensors.
        tasks: Number of tasks.
        limit: Most images that a part may hold, unless one task has more.
    """
    task = batch["task"]
    count = math.ceil(tasks / max(limit * tasks // len(task), 1))
    if count == 1:
        return [batch]
    parts = [set(part.tolist()) for part in torch.arange(tasks).tensor_split(count)]
    rows = [[row for row, own in enumerate(task) if own in part] for part in parts]
    others = {key: value for key, value in batch.items() if key != "task"}
    return [{"task": [task[row] for row in own]} | {key: value[own] for key, value in others.items()} for own in rows]


def gathered(features: torch.Tensor, accelerator: Accelerator) -> torch.Tensor:
    """Rows of all processes; only this process's own carry a gradient.

    The loss is not linear in the batch (class prior, filter memory), so every process computes it on the whole batch.
    The gradient is scaled by the number of processes because data-parallel training averages it.
    """
    world = accelerator.num_processes
    if world == 1:
        return features
    rows = list(accelerator.gather(features.detach()).chunk(world))
    rows[accelerator.process_index] = world * features - (world - 1) * features.detach()
    return torch.cat(rows)


def average(gradients: list[torch.Tensor], accelerator: Accelerator) -> None:
    """Average gradients over processes, in place and in one message."""
    mean = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduction="mean")
    for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
