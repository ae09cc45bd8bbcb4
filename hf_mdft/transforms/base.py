"""What every Phi is."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..registry import Registry


class Transform:
    """A function of task vectors, named in configs as `{"name": ..., **options}`.

    Subclasses are dataclasses: their fields are the options. `fit` sees every tensor once, in order, before the
    first call; override it (and set `needs_fit`) only where Phi depends on the whole vector, not on one tensor.
    """

    name: str
    needs_fit: bool = False

    def fit(self, stream: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Gather statistics over `(tensor name, task vectors (K, *shape))` of the whole pool."""

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
