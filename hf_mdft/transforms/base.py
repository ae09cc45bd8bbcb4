"""What every Phi is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from ..core.registry import Registry


class Transform:
    """A function of task vectors, named in configs as `{"name": ..., **options}`.

    Subclasses are dataclasses: their fields are the options.
    """

    name: str

    def fit(self, tensors: Callable[[], Iterator[tuple[str, torch.Tensor]]], depths: dict[str, float]) -> None:
        """Look at the whole model before the first tensor is transformed; most transforms have no need to.

        Args:
            tensors: Gives name and task vectors `(K, *shape)` of one parameter tensor after the other; may be called
                more than once, for no more than one tensor at a time fits into memory.
            depths: How deep each tensor lies, from 0 (embeddings) to 1 (behind the last block).
        """

    def __call__(self, name: str, vectors: torch.Tensor) -> torch.Tensor:
        """Transformed task vectors of one parameter tensor.

        Args:
            name: Name of the tensor in the tower.
            vectors: `(K, *shape)` in fp32, one row for each expert, in the pool's order.

        Returns:
            A tensor of the same shape and dtype.
        """
        raise NotImplementedError


TRANSFORMS: Registry[type[Transform]] = Registry("transform")
