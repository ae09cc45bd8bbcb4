"""One step in several passes, on several processes."""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator


IMAGES_PER_PASS = 64
"""On a CPU: of 16, 32, 64 and 128 ViT-B/32 images at once, 64 take the least time for each image."""


def in_parts(batch: dict[str, torch.Tensor], tasks: int, images_per_pass: int | None) -> list[dict[str, torch.Tensor]]:
    """A batch in even parts of whole tasks, because the loss is a sum over tasks.

    Args:
        batch: Tensors with one row for each image; `task` holds its task's number, every task as often.
        tasks: Their number.
        images_per_pass: The most that a part may hold, unless one task has more; `None`: `IMAGES_PER_PASS` on a CPU,
            no limit elsewhere.
    """
    task = batch["task"]
    limit = images_per_pass or (IMAGES_PER_PASS if task.device.type == "cpu" else len(task))
    count = math.ceil(tasks / max(limit * tasks // len(task), 1))
    if count == 1:
        return [batch]
    rows = [torch.isin(task, part.to(task)) for part in torch.arange(tasks).tensor_split(count)]
    return [{key: value[part] for key, value in batch.items()} for part in rows]


def average(gradients: list[torch.Tensor], accelerator: Accelerator) -> None:
    """Over processes, in place and in one message."""
    mean = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduction="mean")
    for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
