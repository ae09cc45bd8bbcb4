"""Keep the largest entries of every task vector."""

from dataclasses import dataclass

import torch
from peft.utils.merge_utils import prune

from ..errors import InputError
from .base import TRANSFORMS, Transform


@TRANSFORMS.register("trim")
@dataclass
class Trim(Transform):
    """Zero all but the `density` largest entries, per expert and tensor (the trim step of TIES, Yadav et al. 2023,
    https://huggingface.co/papers/2306.01708, which trims over the whole vector instead).

    Args:
        density: Share of entries kept, in (0, 1]. The default is the paper's.
    """

    density: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise InputError(f"transform '{self.name}': density must lie in (0, 1], got {self.density}")

    def __call__(self, name: str, vectors: torch.Tensor) -> torch.Tensor:
        if self.density == 1:
            return vectors
        return torch.stack([prune(vector, density=self.density, method="magnitude") for vector in vectors])
