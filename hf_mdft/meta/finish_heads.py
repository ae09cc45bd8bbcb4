"""Heads trained to the end on the finished tower's embeddings, which costs next to nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..adapter import combined_once
from ..architectures import Architecture
from ..core.device import fast_bf16
from ..embedding import embed_images
from ..tasks import Images
from .arguments import MdftTrainingArguments
from .objective import MetaObjective, TaskObjective


BATCH = 256


def finish_heads(
    tower: nn.Module,
    architecture: Architecture,
    objective: MetaObjective,
    images: Mapping[str, Images],
    args: MdftTrainingArguments,
) -> None:
    """`finish_head` for some tasks.

    Args:
        tower: PEFT model of the meta-model.
        architecture: Architecture of the tower.
        objective: Objectives of all tasks.
        images: Unlabelled images of those whose heads are trained, by task.
        args: Options of phase 1.
    """
    with combined_once(tower, args.shard):
        for task, own in images.items():
            title = f"Embedding {task} for its head"
            features = embed_images(tower, architecture, own, bf16=fast_bf16(args.device), desc=title)
            finish_head(objective.tasks[task], features, objective.weights, args)


def finish_head(
    objective: TaskObjective, features: torch.Tensor, weights: dict[str, float], args: MdftTrainingArguments
) -> None:
    """Train a task's head in place, with the same terms as before, for `args.head_steps` small steps.

    While tower and heads train together, a head sees every image about once; here, dozens of times.

    Args:
        objective: Objective of the task, whose head is trained.
        features: Embeddings of the task's images by the finished tower, `(N, width)`.
        weights: Weights by term.
        args: Options of phase 1.
    """
    features = features.to(args.device)
    parameters = [p for p in objective.head.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=args.head_learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=args.head_steps)
    generator = torch.Generator().manual_seed(args.seed)
    for _ in range(args.head_steps):
        index = torch.randint(0, len(features), (min(BATCH, len(features)),), generator=generator).to(args.device)
        values, _ = objective(features[index], index)
        loss = sum(weights[term] * value for term, value in values.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    for parameter in parameters:
        parameter.grad = None
