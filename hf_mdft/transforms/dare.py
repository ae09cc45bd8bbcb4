"""Drop entries at random and rescale the rest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from ..core.errors import InputError
from .base import TRANSFORMS, Transform


@TRANSFORMS.register("dare")
@dataclass
class Dare(Transform):
    """Keep a random share of the entries, scaled by its inverse, so that the expected task vector stays (DARE, Yu et
    al. 2024, https://huggingface.co/papers/2311.03099).

    Args:
        density: Share of entries kept, in (0, 1].
        seed: Seed of the choice, which also depends on the tensor's name and the expert's position in the pool.
    """

    version = 1
    density: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise InputError(f"transform '{self.name}': density must lie in (0, 1], got {self.density}")

    def __call__(self, name: str, vectors: torch.Tensor) -> torch.Tensor:
        return torch.stack([vector * self._mask(name, k, vector) for k, vector in enumerate(vectors)]) / self.density

    def _mask(self, name: str, expert: int, vector: torch.Tensor) -> torch.Tensor:
        digest = hashlib.sha256(f"{self.seed} {expert} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        return torch.rand(vector.shape, generator=generator) < self.density
