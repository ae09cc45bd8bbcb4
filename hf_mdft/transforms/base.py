"""What every Phi provides."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch

from ..core.errors import InputError
from ..core.registry import Registry


class Transform:
    """A function of task vectors, named in configs as `{"name": ..., **options}`.

    Subclasses are dataclasses: their fields are the options.
    """

    name: str
    version: ClassVar[int] = 1
    """Raised with every change to what a Phi computes, so that vectors kept from before are prepared anew."""

    def key(self) -> list[Any]:
        """What the result depends on beside the task vectors, for JSON: name, version and all options, defaults filled
        in. The version is that of the class and of every Phi that it inherits from.

        A Phi that applies another one puts that one's key in place of the option.
        """
        versions = [kind.version for kind in type(self).__mro__ if "version" in vars(kind)]
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for field in dataclasses.fields(self):
            if isinstance(field.default, float):  # 1 and 1.0 are one value, but not one text
                options[field.name] = float(options[field.name])
        return [self.name, versions, options]

    def fit(self, tensors: Callable[[], Iterator[tuple[str, torch.Tensor]]], depths: dict[str, float]) -> None:
        """Look at the whole model before the first tensor is transformed; most transforms need not.

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


def transformed(phi: Transform, name: str, vectors: torch.Tensor) -> tuple[str, torch.Tensor]:
    """Name and Phi of the task vectors of one tensor.

    Raises:
        InputError: Phi gives another shape, or numbers that are not finite.
    """
    found = phi(name, vectors)
    if found.shape != vectors.shape:
        shapes = f"{tuple(found.shape)} for the task vectors {tuple(vectors.shape)}"
        raise InputError(f"transform '{phi.name}': gives {shapes} of '{name}'")
    if not found.isfinite().all() and vectors.isfinite().all():
        raise InputError(f"transform '{phi.name}': gives numbers that are not finite for '{name}'")
    return name, found


TRANSFORMS: Registry[type[Transform]] = Registry("transform")
