"""CLIP vision towers: experts share the base's text tower, projection and temperature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPModel, CLIPVisionModel, PreTrainedConfig

from .base import ARCHITECTURES, Architecture, read_config


@ARCHITECTURES.register("clip")
class ClipVision(Architecture):
    """`CLIPVisionModel`, alone or inside `CLIPModel` / `CLIPVisionModelWithProjection`."""

    model_types = ("clip", "clip_vision_model")
    tower_class = CLIPVisionModel
    default_head = "zero_shot"
    must_agree = ("hidden_act", "num_attention_heads", "image_size", "patch_size", "layer_norm_eps")
    wrapper_prefix = "vision_model"
    feature_expression = "pooler_output"
    shared_parts = ("visual_projection.weight",)

    def tower_config(self, config: PreTrainedConfig) -> PreTrainedConfig:
        return getattr(config, "vision_config", config)

    def features(self, outputs: Any) -> torch.Tensor:
        return outputs.pooler_output

    def pipeline_tag(self, config: PreTrainedConfig) -> str:
        return "zero-shot-image-classification" if config.model_type == "clip" else "image-feature-extraction"

    def save_complete(
        self, base: Path, tower_state: dict[str, torch.Tensor], head: nn.Module | None, folder: Path
    ) -> None:
        """A full `CLIPModel` where the base is one, so that zero-shot pipelines work; else the tower alone."""
        config = read_config(base, str(base))
        if config.model_type != "clip":
            return self.save_tower(config, tower_state, folder)
        model = CLIPModel.from_pretrained(base, dtype=torch.float32)
        model.vision_model.load_state_dict(tower_state)
        model.save_pretrained(folder)
