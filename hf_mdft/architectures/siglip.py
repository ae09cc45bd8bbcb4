"""SigLIP vision towers, and those of SigLIP 2 for images of one size."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, SiglipModel, SiglipVisionModel

from .base import ARCHITECTURES
from .contrastive import Contrastive


@ARCHITECTURES.register("siglip")
class SiglipVision(Contrastive):
    """`SiglipVisionModel`, alone or inside `SiglipModel` (SigLIP, Zhai et al. 2023,
    https://huggingface.co/papers/2303.15343): no projection, and a bias beside the temperature."""

    model_types = ("siglip", "siglip_vision_model")
    model_class = SiglipModel
    tower_class = SiglipVisionModel
    padding = "max_length"

    def similarity(self, model: PreTrainedModel) -> dict[str, torch.Tensor]:
        return {
            "projection": torch.eye(model.config.vision_config.hidden_size),
            "logit_scale": model.logit_scale.exp().squeeze(),
            "logit_bias": model.logit_bias.squeeze(),
        }
