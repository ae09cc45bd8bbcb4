"""Any image classifier of transformers: the tower is what lies below its output layers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from ..core.errors import InputError
from .base import ARCHITECTURES, USUAL_SHAPE, Architecture, ClassHead, Weights
from .identity import COSMETIC, one_number
from .keys import canonical_names
from .output_layers import (
    CLASSES,
    class_names_of,
    classifier_class,
    embedding_model,
    new_classifier,
    output_layers,
    with_classes,
)
from .unsupported import REASONS


NOT_USED = re.compile(
    r"drop|initializer|init_value|mask_token|loss|auxiliary|projection_dim|out_features|out_indices|stage_names"
    r"|encoder_stride|layerscale_value|pool_scales|apply_layernorm|reshape_hidden_states|model_type|pretrained_cfg|label_names|down_ops"
)
"""Keys of a config that leave what a trained model computes as it is: of training, of parts that are not used, or made
of others (LeViT's `down_ops`, which grow with every model that is made)."""

PATCH = 16
"""Pixels on a side of a position, for configs that name none."""


@ARCHITECTURES.register("classifier")
class Classifier(Architecture):
    """Whatever `AutoModelForImageClassification` loads. The tower is the model with its output layers taken out, so
    that its logits are the embedding which they read; a head is an output layer."""

    model_types = tuple(sorted(CLASSES.keys() - REASONS.keys()))
    tower_class = PreTrainedModel
    default_head = "linear"
    own_heads = True
    must_agree = ()
    wrapper_prefix = ""
    feature_expression = "logits"

    def tower_config(self, config: PreTrainedConfig) -> PreTrainedConfig:
        return getattr(config, "vision_config", None) or config

    def check_config(self, config: PreTrainedConfig, base_config: PreTrainedConfig, where: str, base: str) -> None:
        super().check_config(config, base_config, where, base)
        mine, theirs = _functional(self.tower_config(base_config)), _functional(self.tower_config(config))
        for key in sorted(mine.keys() | theirs.keys()):
            if one_number(mine.get(key)) != one_number(theirs.get(key)):
                raise InputError(
                    f"{where}: {key} is {theirs.get(key)}, the base {base} has {mine.get(key)}; an expert must be "
                    "fine-tuned from the pool's base"
                )

    def new_tower(self, config: PreTrainedConfig) -> PreTrainedModel:
        return embedding_model(new_classifier(config), output_layers(config))

    def find_tower(self, model: nn.Module) -> tuple[str, nn.Module]:
        known = {name for names in CLASSES.values() for name in names}
        for name, module in model.named_modules():
            if type(module).__name__ in known:
                return name, module
        raise InputError(
            f"{type(model).__name__} holds no image classifier, the part that this pool combines; load the base with "
            "AutoModelForImageClassification"
        )

    def output_layers(self, tower: nn.Module) -> list[str]:
        return output_layers(tower.config)

    def sample_shape(self, config: PreTrainedConfig) -> tuple[int, int, int]:
        size = getattr(self.tower_config(config), "image_size", None)
        if isinstance(size, int):
            size = (size, size)
        return USUAL_SHAPE if size is None else (3, *size)

    def tokens_per_image(self, config: PreTrainedConfig, shape: tuple[int, ...]) -> int:
        size = getattr(self.tower_config(config), "patch_size", None)
        size = size if isinstance(size, int) and size > 0 else PATCH
        return (shape[1] // size) * (shape[2] // size)

    def features(self, outputs: Any) -> torch.Tensor:
        # PP-LCNet's logits have another name.
        return outputs.logits if "logits" in outputs else outputs.last_hidden_state

    def plain_model(self, folder: Path, config: PreTrainedConfig, as_classifier: bool) -> PreTrainedModel:
        if as_classifier:
            return super().plain_model(folder, config, as_classifier)
        model = classifier_class(config).from_pretrained(
            folder, config=config, dtype=torch.float32, ignore_mismatched_sizes=True
        )
        return embedding_model(model, output_layers(config))

    def plain_outputs(self, model: nn.Module, pixel_values: torch.Tensor, as_classifier: bool) -> torch.Tensor:
        return self.features(model(pixel_values=pixel_values))

    def classifier(
        self, weights: Weights, config: PreTrainedConfig, where: str
    ) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        layers = output_layers(config)
        with torch.device("meta"):
            model = new_classifier(config)
        keys = canonical_names(model, weights.keys())
        for name in (f"{layer}.{part}" for layer in layers for part in ("weight", "bias")):
            if name not in keys:
                raise InputError(
                    f"{weights.source}: no '{name}' for the linear head of {where}; give head: FILE.safetensors"
                )
        if list(config.id2label.values()) == _identity_names(len(config.id2label)):
            raise InputError(
                f"{weights.source}: a tower without a classifier, so no linear head of {where}; give head: "
                "FILE.safetensors"
            )
        weight = torch.cat([weights.raw(keys[f"{layer}.weight"]) for layer in layers], dim=1) / len(layers)
        bias = torch.stack([weights.raw(keys[f"{layer}.bias"]) for layer in layers]).mean(dim=0)
        return weight, bias, class_names_of(config, str(weights.source))

    def loader(self, config: PreTrainedConfig) -> str:
        return classifier_class(config).__name__

    def tower_loader(self, config: PreTrainedConfig) -> str:
        return self.loader(config)

    def save_complete(
        self,
        base: Path,
        config: PreTrainedConfig,
        tower_state: dict[str, torch.Tensor],
        head: ClassHead | None,
        folder: Path,
    ) -> None:
        """The classifier with the head as its output layers; without a head, see `save_tower`.

        Raises:
            InputError: The head is not linear.
        """
        if head is None:
            return self.save_tower(config, tower_state, folder)
        linear = head.linear()
        if linear is None:
            raise InputError(
                "an image classifier needs a linear head, this task's is none; give head: FILE.safetensors with "
                "'weight' and 'bias'"
            )
        self._save(config, tower_state, *linear, head.class_names, folder)

    def save_tower(self, config: PreTrainedConfig, tower_state: dict[str, torch.Tensor], folder: Path) -> None:
        """The tower with the identity as its output layers: its logits are the embedding that heads read."""
        layers = output_layers(config)
        with torch.device("meta"):
            model = new_classifier(config)
        width = sum(model.get_submodule(layer).in_features for layer in layers)
        self._save(config, tower_state, torch.eye(width), torch.zeros(width), _identity_names(width), folder)

    def _save(
        self,
        config: PreTrainedConfig,
        tower_state: dict[str, torch.Tensor],
        weight: torch.Tensor,
        bias: torch.Tensor,
        class_names: list[str],
        folder: Path,
    ) -> None:
        with no_init_weights():
            model = new_classifier(with_classes(config, class_names)).to(torch.float32)
        layers = output_layers(config)
        state = dict(tower_state)
        for layer, part in zip(layers, weight.chunk(len(layers), dim=1), strict=True):
            state |= {f"{layer}.weight": part * len(layers), f"{layer}.bias": bias}
        model.load_state_dict(state)
        model.config.dtype = torch.float32
        model.save_pretrained(folder)


def _identity_names(width: int) -> list[str]:
    """Class names of a tower that was saved by itself, whose classifier is the identity."""
    return [f"embedding {number}" for number in range(width)]


def _functional(config: PreTrainedConfig) -> dict[str, Any]:
    """What a config says about the function of a trained model; keys that its class does not know are notes."""
    try:
        known = type(config)().to_dict().keys()
    except Exception:  # a class without defaults
        known = config.to_dict().keys()
    return {
        key: value
        for key, value in config.to_dict().items()
        if key in known and key not in COSMETIC and not key.startswith("_") and not NOT_USED.search(key)
    }
