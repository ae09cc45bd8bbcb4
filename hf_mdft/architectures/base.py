"""What every architecture provides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import nn
from transformers import AutoModel, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from ..core.errors import InputError
from ..core.registry import Registry
from .blocks import depths
from .identity import one_number
from .keys import canonical_names, surplus
from .output_layers import class_names_of


USUAL_SHAPE = (3, 224, 224)
"""Shape of the images that a tower is shown which reads any."""


class Weights(Protocol):
    """The tensors in a model's files, read one at a time."""

    source: Any
    """The model, as messages name it."""

    def keys(self) -> list[str]:
        """All keys of the files."""

    def raw(self, key: str) -> torch.Tensor:
        """A tensor by its key, in fp32."""


class ClassHead(Protocol):
    """What a complete model takes over of a task's head."""

    class_names: list[str]

    def linear(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Weight `(C, width)` and bias `(C,)` where the head is an affine map of the embedding."""


class Architecture:
    """How a kind of vision model is loaded, embedded, combined and written.

    The *tower* is what experts share and what is combined; the rest stays with the base or with the task's head.
    """

    name: str
    model_types: ClassVar[tuple[str, ...]]
    tower_class: ClassVar[type[PreTrainedModel]]
    default_head: ClassVar[str]
    """Kind of head of a task that names none."""
    own_heads: ClassVar[bool]
    """Whether every expert brings its own classifier, so that no head serves a task without an expert."""
    must_agree: ClassVar[tuple[str, ...]]
    """Keys of the tower's config that change the function but no tensor shape: experts must agree with the base."""
    wrapper_prefix: ClassVar[str]
    """Name of the tower inside the complete models of this architecture."""
    shared_parts: ClassVar[tuple[str, ...]] = ()
    """Tensors outside the tower that all experts take from the base, whatever their own files hold."""
    unread_parts: ClassVar[tuple[str, ...]] = ()
    """Modules of the tower as transformers loads it that the embedding does not go through."""
    feature_expression: ClassVar[str]
    """What `features` reads, as a card's reader writes it after `model(...)`."""

    def tower_config(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """The tower's own config within `config`."""
        return config

    def check_config(self, config: PreTrainedConfig, base_config: PreTrainedConfig, where: str, base: str) -> None:
        """Whether an expert's tower computes what the base's would with the same weights.

        Args:
            config: Config of the expert.
            base_config: Config of the base.
            where: Name of the expert, for the message.
            base: Name of the base, for the message.

        Raises:
            InputError: Another kind of model, or another value of a key in `must_agree`.
        """
        advice = "an expert must be fine-tuned from the pool's base"
        kind = getattr(config, "problem_type", None)
        if self.own_heads and kind not in (None, "single_label_classification"):
            what = " (several labels at once)" if str(kind).startswith("multi") else ""
            raise InputError(f"{where}: problem_type is {kind}{what}; give a classifier of one label for each image")
        if config.model_type not in self.model_types:
            raise InputError(
                f"{where}: model type '{config.model_type}' does not fit the base {base} "
                f"('{base_config.model_type}'); {advice}"
            )
        mine, theirs = self.tower_config(base_config), self.tower_config(config)
        for key in self.must_agree:
            if one_number(getattr(mine, key, None)) != one_number(getattr(theirs, key, None)):
                raise InputError(
                    f"{where}: {key} is {getattr(theirs, key, None)}, the base {base} has "
                    f"{getattr(mine, key, None)}; {advice}"
                )

    def new_tower(self, config: PreTrainedConfig) -> PreTrainedModel:
        """A tower with the config's shapes; weights random, or without storage under `torch.device("meta")`."""
        return self.tower_class(self.tower_config(config))

    def tower_of(self, config: PreTrainedConfig, tensors: Mapping[str, torch.Tensor]) -> PreTrainedModel:
        """A tower in fp32 with these weights; random ones are not drawn first, which takes longer than reading.

        Args:
            config: Config of the pool.
            tensors: All of its parameters; buffers that are not among them stay as the model makes them.

        Raises:
            ValueError: A parameter is not among them, so nothing has set it.
        """
        with no_init_weights():
            tower = self.new_tower(config).to(torch.float32)
        missing = tower.load_state_dict(tensors, strict=False).missing_keys
        if unset := dict(tower.named_parameters()).keys() & missing:
            raise ValueError(f"no weights for {min(unset)}")
        return tower

    def plain_model(self, folder: Path, config: PreTrainedConfig, as_classifier: bool) -> PreTrainedModel:
        """A folder's model as plain transformers loads it, in fp32.

        Args:
            folder: Folder of the model.
            config: Its config, or that of an adapter on it, which has other classes; of a base, the pool's.
            as_classifier: Whether its logits are asked for, rather than its embedding.
        """
        auto = AutoModelForImageClassification if as_classifier else AutoModel
        return auto.from_pretrained(folder, config=config, dtype=torch.float32, ignore_mismatched_sizes=True)

    def plain_outputs(self, model: nn.Module, pixel_values: torch.Tensor, as_classifier: bool) -> torch.Tensor:
        """Logits, or the embedding, of what `plain_model` gave."""
        outputs = model(pixel_values=pixel_values)
        return outputs.logits if as_classifier else self.features(outputs)

    def image_shape(self, config: PreTrainedConfig) -> tuple[int, int, int] | None:
        """Shape `(3, height, width)` of the images that a tower reads; `None` where it reads any."""
        return None

    def sample_shape(self, config: PreTrainedConfig) -> tuple[int, int, int]:
        """Shape of images that a tower can be shown to see how it works."""
        return self.image_shape(config) or USUAL_SHAPE

    def output_layers(self, tower: nn.Module) -> list[str]:
        """Names of the layers within `tower` that are no part of what is combined: a classifier's own."""
        return []

    def complete_model(self, config: PreTrainedConfig) -> PreTrainedModel | None:
        """All of a base that heads and results are made of, with the config's shapes; `None` where it is the tower."""
        return None

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
        return canonical_names(tower, keys, self.wrapper_prefix)

    def surplus(self, tower: PreTrainedModel, keys: list[str]) -> list[str]:
        """Keys in a file that are of more layers: of a tensor's name but for the layer's number."""
        return surplus(tower, keys, self.wrapper_prefix)

    def depths(self, tower: nn.Module) -> dict[str, int]:
        """Depth of every parameter: 0 for the embeddings, i for block i (from 1), -1 behind the last block."""
        return depths(tower, self.sample_shape(tower.config))

    def tokens_per_image(self, config: PreTrainedConfig, shape: tuple[int, ...]) -> int:
        """Number of positions at which a tower computes.

        Args:
            config: Config of the base.
            shape: Shape `(3, height, width)` of the images.
        """
        raise NotImplementedError

    def features(self, outputs: Any) -> torch.Tensor:
        """The image embedding `(batch, width)` that heads read, from the tower's outputs."""
        raise NotImplementedError

    def classifier(
        self, weights: Weights, config: PreTrainedConfig, where: str
    ) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        """Weight `(C, width)`, bias `(C,)` and C class names of an expert's own linear classifier.

        Args:
            weights: Tensors of the expert.
            config: Config of the expert.
            where: Name of the task, for the message.

        Raises:
            InputError: The expert's files hold no classifier.
        """
        for key in ("classifier.weight", "classifier.bias"):
            if key not in weights.keys():
                raise InputError(
                    f"{weights.source}: no '{key}' for the linear head of {where}; give head: FILE.safetensors"
                )
        names = class_names_of(config, str(weights.source))
        return weights.raw("classifier.weight"), weights.raw("classifier.bias"), names

    def has_text_tower(self, config: PreTrainedConfig) -> bool:
        """Whether a model with this config embeds text beside images."""
        return False

    def text_embeddings(
        self, folder: Path, class_names: list[str], templates: list[str], where: str
    ) -> dict[str, torch.Tensor]:
        """Tensors of a zero-shot head: `class_embeddings` `(C, dim)`, the mean over templates of each class name's
        unit-length text embeddings, at unit length; `projection` `(dim, width)`; `logit_scale` `()`, and `logit_bias`
        `()` where there is one.

        Args:
            folder: Folder of the base.
            class_names: C names.
            templates: Prompts with one `{}` for the class name.
            where: Name of the task, for the message.

        Raises:
            InputError: The base has no text tower, or no readable tokenizer.
        """
        raise InputError(
            f"{where}: a zero-shot head needs a base with a text tower (CLIPModel, SiglipModel), this pool's has "
            "none; use head: linear or a file"
        )

    def pipeline_tag(self, config: PreTrainedConfig) -> str:
        """The Hub's name for what a complete model of this base does."""
        return "image-classification"

    def loader(self, config: PreTrainedConfig) -> str:
        """The transformers class with which a card's reader loads a complete model of this base."""
        return "AutoModel"

    def tower_loader(self, config: PreTrainedConfig) -> str:
        """The transformers class with which a card's reader loads a tower that was saved alone."""
        return "AutoModel"

    def save_complete(
        self,
        base: Path,
        config: PreTrainedConfig,
        tower_state: dict[str, torch.Tensor],
        head: ClassHead | None,
        folder: Path,
    ) -> None:
        """Write a complete model in fp32 safetensors.

        Args:
            base: Folder of the base, which gives everything but the tower's weights.
            config: Config of the pool.
            tower_state: State dict of the tower.
            head: Head of the task; none writes what serves all tasks at once.
            folder: Where the model is written.
        """
        raise NotImplementedError

    def save_tower(self, config: PreTrainedConfig, tower_state: dict[str, torch.Tensor], folder: Path) -> None:
        """Write the tower alone, in fp32 safetensors."""
        tower = self.tower_of(config, tower_state)
        tower.config.dtype = torch.float32
        tower.save_pretrained(folder)


class VisionTransformer(Architecture):
    """What towers with a class token and square patches have in common."""

    must_agree = ("hidden_act", "num_attention_heads", "image_size", "patch_size", "layer_norm_eps")

    def image_shape(self, config: PreTrainedConfig) -> tuple[int, int, int]:
        size = self.tower_config(config).image_size
        return (3, *size) if isinstance(size, list | tuple) else (3, size, size)

    def tokens_per_image(self, config: PreTrainedConfig, shape: tuple[int, ...]) -> int:
        size = self.tower_config(config).patch_size
        return math.prod(side // size for side in shape[1:]) + 1


ARCHITECTURES: Registry[type[Architecture]] = Registry("architecture")
