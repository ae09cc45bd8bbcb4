"""Phi(tau) = tau: task arithmetic."""

from dataclasses import dataclass

import torch

from .base import TRANSFORMS, Transform


@TRANSFORMS.register("identity")
@dataclass
class Identity(Transform):
    """Task vectors as they are (Ilharco et al. 2023, https://huggingface.co/papers/2212.04089)."""

    version = 1

    def __call__(self, name: str, vectors: torch.Tensor) -> torch.Tensor:
        return vectors
