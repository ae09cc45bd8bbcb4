"""What every architecture tells about itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from ..core.errors import InputError
from ..core.registry import Registry


class Architecture:
    """How a kind of vision model is loaded, embedded, combined and written.

    The *tower* is the part that experts of a pool share and that is combined; everything else (text tower,
    projection, classifier) stays with the base or with the task's head.
    """

    name: str
    model_types: ClassVar[tuple[str, ...]]
    tower_class: ClassVar[type[PreTrainedModel]]
    default_head: ClassVar[str]
    must_agree: ClassVar[tuple[str, ...]]
    """Keys of the tower's config that change the function but no tensor shape: experts must agree with the base."""

    def tower_config(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """The tower's own config within `config`."""
        return config

    def new_tower(self, config: PreTrainedConfig) -> PreTrainedModel:
        """A tower with the config's shapes; weights random, or without storage under `torch.device("meta")`."""
        return self.tower_class(self.tower_config(config))

    def find_tower(self, model: nn.Module) -> tuple[str, nn.Module]:
        """Name and module of the tower inside `model`; the name is `""` where the model is a tower.

        Raises:
            InputError: The model holds no such tower.
        """
        for name, module in model.named_modules():
            if isinstance(module, self.tower_class):
                return name, module
        raise InputError(
            f"{type(model).__name__} holds no {self.tower_class.__name__}, the part that '{self.name}' pools combine"
        )

    def canonical_names(self, tower: PreTrainedModel, keys: list[str]) -> dict[str, str]:
        """Tensor name in the tower -> key in a file, whatever layout the file has.

        Keys that are not the tower's (text tower, classifier, old `position_ids`) are left out. Files of one pool
        may use different layouts, so keys of two files are never compared directly.
        """
        renamings = [t for t in get_model_conversion_mapping(tower) if isinstance(t, WeightRenaming)]
        state = tower.state_dict()
        names = {}
        for key in keys:
            name, _ = rename_source_key(key, renamings, [], tower.base_model_prefix, state)
            if name not in state:
                name = name.removeprefix(f"{self.wrapper_prefix}.")
            if name in state:
                names[name] = key
        return names

    wrapper_prefix: ClassVar[str]
    """Name of the tower inside the complete models of this architecture."""

    def depth(self, name: str) -> int:
        """How deep a tensor lies: 0 for the embeddings, i for transformer block i (from 1), -1 behind the last."""
        block = re.search(r"\blayers?\.(\d+)\.", name)
        if block:
            return int(block[1]) + 1
        return 0 if re.match(r"(embeddings|pre_)", name) else -1

    feature_expression: ClassVar[str]
    """What `features` reads, as a card's reader writes it after `model(...)`."""

    def features(self, outputs: Any) -> torch.Tensor:
        """The image embedding `(batch, width)` that heads read, from the tower's outputs."""
        raise NotImplementedError

    def pipeline_tag(self, config: PreTrainedConfig) -> str:
        """The Hub's name for what a complete model of this base does."""
        return "image-classification"

    shared_parts: ClassVar[tuple[str, ...]] = ()
    """Tensors outside the tower that all experts take from the base, whatever their own files hold."""

    def save_complete(
        self, base: Path, tower_state: dict[str, torch.Tensor], head: nn.Module | None, folder: Path
    ) -> None:
        """Write a complete model: the base at `base` with these tower weights and this head, in fp32 safetensors.

        Without a head: what serves all tasks at once.
        """
        raise NotImplementedError

    def save_tower(self, config: PreTrainedConfig, tower_state: dict[str, torch.Tensor], folder: Path) -> None:
        """Write the tower alone, in fp32 safetensors."""
        tower = self.new_tower(config).to(torch.float32)
        tower.load_state_dict(tower_state)
        tower.config.dtype = torch.float32
        tower.save_pretrained(folder)


ARCHITECTURES: Registry[type[Architecture]] = Registry("architecture")


def architecture_of(config: PreTrainedConfig, where: str) -> Architecture:
    """The registered architecture for a model's config.

    Raises:
        InputError: None is registered for this model type.
    """
    for name in ARCHITECTURES.names():
        part = ARCHITECTURES.get(name)
        if config.model_type in part.model_types:
            return part()
    known = sorted(t for n in ARCHITECTURES.names() for t in ARCHITECTURES.get(n).model_types)
    raise InputError(f"{where}: model type '{config.model_type}' cannot be pooled; known: {', '.join(known)}")


def read_config(folder: Path, where: str) -> PreTrainedConfig:
    """The model config in a folder; code from the folder is never run.

    Raises:
        InputError: No readable `config.json`.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"{where}: no config.json; give a folder or repo that save_pretrained has written")
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a stranger's file: the parser raises whatever it stumbles over
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(f"{where}: config.json cannot be read ({reason})") from error
