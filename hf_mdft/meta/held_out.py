"""Images that phase 1 does not train on, and how far the meta-model is from the experts on them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..adapter import combined_once
from ..embedding import embed_images
from ..objectives import expert_divergence
from ..pool import ModelPool
from ..tasks import Images
from .arguments import MdftTrainingArguments
from .objective import TaskObjective


MOST = 64
"""Images of a task that are held out, at most: over eight tasks, a look at them costs as much as a step and a half."""


@torch.no_grad()
def held_out_loss(
    model: nn.Module,
    pool: ModelPool,
    objectives: Mapping[str, TaskObjective],
    images: Mapping[str, Images],
    rows: Mapping[str, torch.Tensor],
    args: MdftTrainingArguments,
) -> float:
    """Mean over tasks of `KL(expert || meta-model)` on the images that are held out.

    Args:
        model: PEFT model of the meta-model.
        pool: Base and experts.
        objectives: Heads and the experts' outputs by task.
        images: Unlabelled images by task.
        rows: Rows of those that are held out, by task.
        args: Options of phase 1.
    """
    losses = []
    with combined_once(model, args.shard):
        for task, own in rows.items():
            found = embed_images(model, pool.architecture, images[task].subset(own.tolist()), bf16=args.bf16)
            logits, expert = objectives[task].head(found.to(args.device)), objectives[task].expert_logits[own]
            losses.append(expert_divergence(logits, expert, args.distillation_temperature).mean().item())
    return sum(losses) / len(losses)
