"""Heads trained to the end on the finished tower's embeddings, which costs next to nothing."""

from __future__ import annotations

import torch

from .arguments import MdftTrainingArguments
from .objective import TaskObjective


BATCH = 256


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
