"""A few bits for each entry."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..core.errors import InputError
from .base import TRANSFORMS, Transform


@TRANSFORMS.register("quantize")
@dataclass
class Quantize(Transform):
    """Round every entry to one of `2^bits - 1` values that lie evenly around zero, up to the largest magnitude of the
    expert's tensor (task vector quantization, Kim et al. 2025, https://huggingface.co/papers/2503.06921; theirs is
    asymmetric). Small entries become zero, which removes noise.

    Args:
        bits: Bits of each entry, from 2 to 8.
    """

    version = 1
    bits: int = 4

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise InputError(f"transform '{self.name}': bits must lie in 2..8, got {self.bits}")

    def __call__(self, name: str, vectors: torch.Tensor) -> torch.Tensor:
        steps = 2 ** (self.bits - 1) - 1
        largest = vectors.reshape(len(vectors), -1).abs().amax(dim=1).view(-1, *[1] * (vectors.dim() - 1))
        size = (largest / steps).clamp(min=torch.finfo(vectors.dtype).tiny)
        return (vectors / size).round() * size
