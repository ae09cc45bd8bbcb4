"""Which samples count: weights in [0, 1], never differentiated."""

from __future__ import annotations

import torch
from torch import nn

from ..core.registry import Registry
from .entropy import entropy, max_entropy


class SampleFilter(nn.Module):
    """Gives every sample of a batch a weight in [0, 1]. One instance for each task; its buffers are its memory.

    Args:
        num_classes: Number of classes C of the task: thresholds must scale with it.
    """

    name: str

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    @torch.no_grad()
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Weights `(batch,)` from logits `(batch, C)`."""
        return self.weigh(logits.detach().float())

    def weigh(self, logits: torch.Tensor) -> torch.Tensor:
        """Weights `(batch,)` from detached fp32 logits `(batch, C)`."""
        raise NotImplementedError


FILTERS: Registry[type[SampleFilter]] = Registry("filter")


@FILTERS.register("none")
class KeepAll(SampleFilter):
    """Every sample counts fully."""

    def weigh(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(logits), device=logits.device)


@FILTERS.register("eata")
class Eata(SampleFilter):
    """Reliable and non-redundant samples (EATA, Niu et al. 2022, https://huggingface.co/papers/2204.02610).

    Reliable: entropy below `E0 = margin * ln C`; such a sample weighs `exp(-H)`, which is EATA's `exp(E0 - H)` scaled
    to at most 1. Non-redundant: `|cos(p, m)| < redundancy / sqrt(C)`, where m is a moving mean of kept predictions.

    Args:
        margin: Entropy limit over ln C; the paper's 0.4.
        redundancy: Cosine limit times sqrt(C). The paper's fixed cosine of 0.05 is for 1,000 classes and rejects
            nearly everything at 10, where a confident prediction has a cosine of about 1 / sqrt(C) to a balanced mean;
            1.3 leaves room above that.
        momentum: Momentum of the moving mean; the paper's 0.9.
    """

    def __init__(self, num_classes: int, margin: float = 0.4, redundancy: float = 1.3, momentum: float = 0.9) -> None:
        super().__init__(num_classes)
        self.threshold = margin * max_entropy(num_classes)
        self.max_cosine = redundancy / num_classes**0.5
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(num_classes))

    def weigh(self, logits: torch.Tensor) -> torch.Tensor:
        p = logits.softmax(dim=-1)
        h = entropy(logits)
        # The cosine to a mean of nothing yet is 0. Nothing here asks for a value: an accelerator would have to wait.
        keep = (h < self.threshold) & (torch.cosine_similarity(p, self.mean[None], dim=-1).abs() < self.max_cosine)
        mean = torch.where(keep[:, None], p, 0.0).sum(dim=0) / keep.sum().clamp(min=1)
        moved = torch.where(self.mean.any(), self.momentum * self.mean + (1 - self.momentum) * mean, mean)
        self.mean.copy_(torch.where(keep.any(), moved, self.mean))
        return torch.where(keep, torch.exp(-h), 0.0)
