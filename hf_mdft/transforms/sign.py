"""One bit for each entry."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .base import TRANSFORMS, Transform


@TRANSFORMS.register("sign")
@dataclass
class Sign(Transform):
    """The sign of every entry times the mean magnitude, per expert and tensor (binarized task vectors, as in
    T-Switch, https://huggingface.co/papers/2412.00054)."""

    version = 1

    def __call__(self, name: str, vectors: torch.Tensor) -> torch.Tensor:
        scale = vectors.reshape(len(vectors), -1).abs().mean(dim=1)
        return vectors.sign() * scale.view(-1, *[1] * (vectors.dim() - 1))
