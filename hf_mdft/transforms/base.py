"""What every Phi is."""

from __future__ import annotations

import torch

from ..registry import Registry


class Transform:
    """A function of task vectors, named in configs as `{"name": ..., **options}`.

    Subclasses are dataclasses: their fields are the options.
    """

    name: str

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
