"""Keep the largest singular components of every task matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..core.errors import InputError
from .base import TRANSFORMS, Transform
from .matrix import as_matrices, as_vectors, leading


@TRANSFORMS.register("low_rank")
@dataclass
class LowRank(Transform):
    """Truncated singular value decomposition of each task matrix: most of what an expert learned has low rank
    (Gargiulo et al. 2025, https://huggingface.co/papers/2412.00081). Vectors stay as they are.

    Args:
        share: Share of the singular components that are kept, in (0, 1]; at least one is.
    """

    version = 3
    share: float = 0.125

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"transform '{self.name}': share must lie in (0, 1], got {self.share}")

    def __call__(self, name: str, vectors: torch.Tensor) -> torch.Tensor:
        matrices = as_matrices(vectors)
        if matrices is None:
            return vectors
        left, values, right = leading(matrices, max(1, round(self.share * min(matrices.shape[1:]))))
        return as_vectors((left * values[..., None, :]) @ right, vectors)
