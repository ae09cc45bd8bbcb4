"""Larger task vectors for deeper layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from .base import TRANSFORMS, Transform


@TRANSFORMS.register("lines")
@dataclass
class Lines(Transform):
    """Scale another transform's task vectors by a factor that grows linearly with depth (LiNeS, Wang et al. 2025,
    https://huggingface.co/papers/2410.17146): shallow layers are shared by all tasks, deep ones are each task's own.

    Args:
        shallow: Factor at the embeddings.
        deep: Factor behind the last block. The defaults have a mean of 1, so that the merge keeps its size.
        of: The transform that is scaled, by name and options.

    A tensor of unknown depth (no `fit`) is taken to lie in the middle.
    """

    version = 1
    shallow: float = 0.5
    deep: float = 1.5
    of: Any = "identity"

    def __post_init__(self) -> None:
        self._depths: dict[str, float] = {}
        self._inner = TRANSFORMS.build(self.of)

    def key(self) -> list[Any]:
        name, versions, options = super().key()
        return [name, versions, {**options, "of": self._inner.key()}]

    def fit(self, tensors: Callable[[], Iterator[tuple[str, torch.Tensor]]], depths: dict[str, float]) -> None:
        self._depths = depths
        self._inner.fit(tensors, depths)

    def __call__(self, name: str, vectors: torch.Tensor) -> torch.Tensor:
        factor = self.shallow + (self.deep - self.shallow) * self._depths.get(name, 0.5)
        return factor * self._inner(name, vectors)
