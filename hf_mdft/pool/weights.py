"""Tensors of a model's tower, read lazily from its safetensors files under the tower's own names."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from ..architectures import Architecture
from ..errors import InputError
from .sources import ModelSource, weight_files


class TowerWeights:
    """The tower's tensors in the files of one model, in fp32, one at a time.

    Args:
        source: The model.
        architecture: Of the pool.
        tower: A tower of the right shapes (the meta device will do): the names and shapes to find.

    Raises:
        InputError: A file cannot be read, a tensor is missing or has another shape.
    """

    def __init__(self, source: ModelSource, architecture: Architecture, tower: PreTrainedModel) -> None:
        self.source = source
        self._files = {}
        for path in weight_files(source.folder, str(source)):
            try:
                file = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise InputError(f"{source}: {path.name} is damaged or no safetensors file ({error})") from error
            self._files.update(dict.fromkeys(file.keys(), file))
        self._keys = architecture.canonical_names(tower, list(self._files))
        self._check(tower)

    def _check(self, tower: PreTrainedModel) -> None:
        for name, wanted in tower.named_parameters():
            if name not in self._keys:
                raise InputError(
                    f"{self.source}: tensor '{name}' of the base is missing; an expert must be fine-tuned from the "
                    "pool's base"
                )
            shape = tuple(self._files[self._keys[name]].get_slice(self._keys[name]).get_shape())
            if shape != tuple(wanted.shape):
                raise InputError(
                    f"{self.source}: tensor '{name}' has shape {shape}, the base has {tuple(wanted.shape)}; an expert "
                    "must be fine-tuned from the pool's base"
                )

    def keys(self) -> list[str]:
        """All keys of the files, the tower's and others, as they stand there."""
        return list(self._files)

    def raw(self, key: str) -> torch.Tensor:
        """A tensor by its key in the file, in fp32."""
        return self._files[key].get_tensor(key).float()

    def tensor(self, name: str) -> torch.Tensor:
        """A tower tensor in fp32.

        Raises:
            InputError: It holds NaN or infinity.
        """
        tensor = self.raw(self._keys[name])
        if not torch.isfinite(tensor).all():
            raise InputError(f"{self.source}: tensor '{name}' holds NaN or infinity; take another revision")
        return tensor

    def items(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name in self._keys:
            yield name, self.tensor(name)
