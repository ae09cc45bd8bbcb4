"""ViT classification models: every expert has a classifier of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    ViTForImageClassification,
    ViTModel,
)
from transformers.initialization import no_init_weights

from ..core.errors import InputError
from .base import ARCHITECTURES, ClassHead, VisionTransformer
from .output_layers import with_classes


@ARCHITECTURES.register("vit")
class Vit(VisionTransformer):
    """`ViTModel` inside `ViTForImageClassification` (ViT, Dosovitskiy et al. 2021,
    https://huggingface.co/papers/2010.11929; DeiT checkpoints saved as ViT)."""

    model_types = ("vit",)
    tower_class = ViTModel
    default_head = "linear"
    own_heads = True
    unread_parts = ("pooler",)
    wrapper_prefix = "vit"
    feature_expression = "last_hidden_state[:, 0]"

    def new_tower(self, config: PreTrainedConfig) -> PreTrainedModel:
        return ViTModel(config, add_pooling_layer=False)

    def features(self, outputs: Any) -> torch.Tensor:
        return outputs.last_hidden_state[:, 0]

    def save_complete(
        self,
        base: Path,
        config: PreTrainedConfig,
        tower_state: dict[str, torch.Tensor],
        head: ClassHead | None,
        folder: Path,
    ) -> None:
        """A `ViTForImageClassification` with the head as classifier and its class names as labels.

        Raises:
            InputError: The head is not linear.
        """
        if head is None:
            return self.save_tower(config, tower_state, folder)
        classifier = head.linear()
        if classifier is None:
            raise InputError(
                "a ViT classification model needs a linear head, this task's is none; give head: FILE.safetensors "
                "with 'weight' and 'bias'"
            )
        with no_init_weights():
            model = ViTForImageClassification(with_classes(config, head.class_names)).to(torch.float32)
        model.vit.load_state_dict(tower_state)
        model.classifier.load_state_dict(dict(zip(("weight", "bias"), classifier, strict=True)))
        model.config.dtype = torch.float32
        model.save_pretrained(folder)
