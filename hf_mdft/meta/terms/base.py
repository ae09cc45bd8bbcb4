"""What every term of phase 1's loss is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...core.registry import Registry


if TYPE_CHECKING:
    from ..arguments import MdftTrainingArguments


@dataclass(frozen=True)
class TaskBatch:
    """One task's images of a batch, with the expert's outputs for them (the base's, for a task without an expert).

    Args:
        features: Embeddings of the meta-model's tower, `(n, width)`.
        logits: Logits of the task's head on them, `(n, C)`.
        expert_features: Embeddings of the expert, averaged over its views, `(n, width)`.
        expert_logits: Log-probabilities of the expert, averaged over its views, `(n, C)`.
        prior: Class prior `(C,)`, estimated from the expert on all images of the task.
    """

    features: torch.Tensor
    logits: torch.Tensor
    expert_features: torch.Tensor
    expert_logits: torch.Tensor
    prior: torch.Tensor


class MetaTerm(nn.Module):
    """A term of phase 1's loss. Every task has an instance of its own; buffers are its memory, and checkpoints hold
    them.

    Args:
        num_classes: Number of classes C of the task.
        args: Options of phase 1.
    """

    name: str

    def __init__(self, num_classes: int, args: MdftTrainingArguments) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.args = args

    def forward(self, batch: TaskBatch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Value before its weight, and the share of images that count in it (`None` where all do); both scalars."""
        raise NotImplementedError


META_TERMS: Registry[type[MetaTerm]] = Registry("term of phase 1")
