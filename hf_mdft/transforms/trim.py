"""Keep the largest entries of every task vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from peft.utils.merge_utils import prune

from ..core.errors import InputError
from .base import TRANSFORMS, Transform


@TRANSFORMS.register("trim")
@dataclass
class Trim(Transform):
    """Zero all but the `density` largest entries of each expert, at least one (the trim step of TIES, Yadav et al.
    2023, https://huggingface.co/papers/2306.01708).

    Args:
        density: Share of entries kept, in (0, 1]. The default is the paper's.
        scope: `"tensor"`: that share of every tensor. `"model"`: of the whole task vector, as in the paper; tensors
            that fine-tuning changed little then lose more.
    """

    version = 2
    density: float = 0.2
    scope: str = "tensor"

    def __post_init__(self) -> None:
        self._thresholds: torch.Tensor | None = None
        if not 0 < self.density <= 1:
            raise InputError(f"transform '{self.name}': density must lie in (0, 1], got {self.density}")
        if self.scope not in ("tensor", "model"):
            raise InputError(f"transform '{self.name}': scope must be 'tensor' or 'model', got '{self.scope}'")

    def fit(self, tensors: Callable[[], Iterator[tuple[str, torch.Tensor]]], depths: dict[str, float]) -> None:
        if self.scope == "model" and self.density < 1:
            self._thresholds = kept_from(tensors, self.density)

    def __call__(self, name: str, vectors: torch.Tensor) -> torch.Tensor:
        if self.density == 1:
            return vectors
        if self.scope == "tensor":
            # Rounded down there; slightly more than 1 / n, so that one is not rounded to none.
            density = max(self.density, (1 + 1e-9) / max(vectors[0].numel(), 1))
            if density >= 1:
                return vectors
            return torch.stack([prune(vector, density=density, method="magnitude") for vector in vectors])
        if self._thresholds is None:
            raise RuntimeError(f"transform '{self.name}' with scope 'model' needs fit() first")
        return vectors * (vectors.abs() >= self._thresholds.view(-1, *[1] * (vectors.dim() - 1)))


def kept_from(tensors: Callable[[], Iterator[tuple[str, torch.Tensor]]], density: float) -> torch.Tensor:
    """Size `(K,)` of the smallest entry that is among the `density` largest of each expert's whole task vector.

    Exact, in two passes and constant memory: positive floats are ordered as their bits are, so that a histogram of
    the upper 16 bits and then one of the lower 16 within the entry's bin find it.

    Args:
        tensors: Gives name and task vectors `(K, *shape)` of one tensor after the other.
        density: Share of entries kept, in (0, 1].
    """
    upper = lower = None
    for _, stack in tensors():
        bits = _bits(stack)
        counts = torch.stack([torch.bincount(row >> 16, minlength=1 << 16) for row in bits])
        upper = counts if upper is None else upper + counts
    wanted = (density * upper.sum(dim=1)).long().clamp(min=1)
    # Entries in this bin and above, down from the largest.
    above = upper.flip(1).cumsum(1).flip(1)
    bins = (above >= wanted[:, None]).sum(dim=1) - 1
    missing = wanted - (above.gather(1, bins[:, None])[:, 0] - upper.gather(1, bins[:, None])[:, 0])
    for _, stack in tensors():
        rows = zip(_bits(stack), bins, strict=True)
        counts = torch.stack([torch.bincount(row[row >> 16 == b] & 0xFFFF, minlength=1 << 16) for row, b in rows])
        lower = counts if lower is None else lower + counts
    inside = (lower.flip(1).cumsum(1).flip(1) >= missing[:, None]).sum(dim=1) - 1
    return ((bins << 16) + inside).to(torch.int32).view(torch.float32)


def _bits(stack: torch.Tensor) -> torch.Tensor:
    return stack.abs().float().flatten(1).contiguous().view(torch.int32).long()
