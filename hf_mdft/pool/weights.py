"""Tensors of a model's tower, read lazily from its safetensors files under the tower's own names."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from ..architectures import Architecture
from ..core.errors import InputError
from .headers import check_header, read_header
from .source import ModelSource


class TowerWeights:
    """The tower's tensors in the files of one model, in fp32, one at a time.

    Args:
        source: The model; its weights are here.
        architecture: Architecture of the pool.
        tower: A tower of the right shapes (the meta device will do): the names and shapes to find.

    Raises:
        InputError: A file cannot be read, a tensor is missing or has another shape.
    """

    def __init__(self, source: ModelSource, architecture: Architecture, tower: PreTrainedModel) -> None:
        self.source = source
        self._header = read_header(source)
        check_header(source, self._header, architecture, tower)
        self._files = {name: safe_open(source.folder / name, framework="pt") for name in source.weights}
        self._keys = architecture.canonical_names(tower, list(self._header))
        self._parameters = {name for name, _ in tower.named_parameters()}

    def keys(self) -> list[str]:
        """All keys of the files, the tower's and others, without the prefixes of wrappers."""
        return list(self._header)

    @property
    def wrapped(self) -> bool:
        """Whether names in the files have the prefixes of wrappers, so that plain transformers does not find them."""
        return any(found.key != name for name, found in self._header.items())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tower's parameters, by name; nothing is read."""
        return {name: self._header[key].shape for name, key in self._keys.items() if name in self._parameters}

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor by its key; nothing is read."""
        return self._header[key].shape

    def raw(self, key: str) -> torch.Tensor:
        """A tensor by its key, in fp32; whole numbers as they are."""
        found = self._header[key]
        tensor = self._files[found.file].get_tensor(found.key)
        return tensor.float() if tensor.is_floating_point() else tensor

    def tensor(self, name: str) -> torch.Tensor:
        """A tower tensor by its name in the tower, as `raw` gives it.

        Raises:
            InputError: It holds NaN or infinity.
        """
        tensor = self.raw(self._keys[name])
        if not torch.isfinite(tensor).all():
            raise InputError(f"{self.source}: tensor '{name}' holds NaN or infinity; take another revision")
        return tensor

    def items(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All of the tower's tensors: parameters, and buffers of whole numbers."""
        for name in self._keys:
            yield name, self.tensor(name)

    def parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The tower's parameters, which are what task vectors are made of."""
        return ((name, tensor) for name, tensor in self.items() if name in self._parameters)
