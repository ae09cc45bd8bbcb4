"""CLIP vision towers: experts share the base's text tower, projection and temperature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer, CLIPModel, CLIPVisionModel, PreTrainedConfig, PreTrainedModel

from ..core.errors import InputError
from .base import ARCHITECTURES, ClassHead, VisionTransformer, read_config


@ARCHITECTURES.register("clip")
class ClipVision(VisionTransformer):
    """`CLIPVisionModel`, alone or inside `CLIPModel` / `CLIPVisionModelWithProjection` (CLIP, Radford et al. 2021,
    https://huggingface.co/papers/2103.00020)."""

    model_types = ("clip", "clip_vision_model")
    tower_class = CLIPVisionModel
    default_head = "zero_shot"
    own_heads = False
    wrapper_prefix = "vision_model"
    shared_parts = ("visual_projection.weight",)
    feature_expression = "pooler_output"

    def tower_config(self, config: PreTrainedConfig) -> PreTrainedConfig:
        return getattr(config, "vision_config", config)

    def features(self, outputs: Any) -> torch.Tensor:
        return outputs.pooler_output

    def has_text_tower(self, config: PreTrainedConfig) -> bool:
        return config.model_type == "clip"

    def plain_outputs(self, folder: Path, pixel_values: torch.Tensor) -> tuple[torch.Tensor, bool]:
        model = AutoModel.from_pretrained(folder, trust_remote_code=False, dtype=torch.float32).eval()
        tower = getattr(model, "vision_model", model)
        return self.features(tower(pixel_values=pixel_values)), False

    def complete_model(self, config: PreTrainedConfig) -> PreTrainedModel | None:
        return CLIPModel(config) if self.has_text_tower(config) else None

    @torch.no_grad()
    def text_embeddings(
        self, folder: Path, class_names: list[str], templates: list[str], where: str
    ) -> dict[str, torch.Tensor]:
        if not self.has_text_tower(read_config(folder, where)):
            return super().text_embeddings(folder, class_names, templates, where)
        model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # an untrusted file: its parser may raise anything
            raise InputError(f"{folder}: no tokenizer that can be read beside the base; add its files") from error
        if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
            # transformers makes an empty one where there are no files.
            raise InputError(f"{folder}: no tokenizer beside the base; add its files (tokenizer.json)")
        rows = []
        for class_name in class_names:
            prompts = [template.replace("{}", class_name) for template in templates]
            tokens = tokenizer(prompts, padding=True, truncation=True, return_tensors="pt")
            if tokens.input_ids.max() >= model.config.text_config.vocab_size:
                raise InputError(f"{folder}: the tokenizer has more tokens than the text tower; add its own")
            embeddings = model.get_text_features(**tokens).pooler_output
            rows.append(F.normalize(F.normalize(embeddings, dim=-1).mean(dim=0), dim=0))
        return {
            "class_embeddings": torch.stack(rows),
            "projection": model.visual_projection.weight,
            "logit_scale": model.logit_scale.exp(),
        }

    def pipeline_tag(self, config: PreTrainedConfig) -> str:
        return "zero-shot-image-classification" if self.has_text_tower(config) else "image-feature-extraction"

    def loader(self, config: PreTrainedConfig) -> str:
        return "CLIPModel" if self.has_text_tower(config) else "AutoModel"

    def save_complete(
        self, base: Path, tower_state: dict[str, torch.Tensor], head: ClassHead | None, folder: Path
    ) -> None:
        """A full `CLIPModel` where the base is one, so that zero-shot pipelines work; else the tower alone."""
        config = read_config(base, str(base))
        if not self.has_text_tower(config):
            return self.save_tower(config, tower_state, folder)
        model = CLIPModel.from_pretrained(base, dtype=torch.float32)
        model.vision_model.load_state_dict(tower_state)
        model.save_pretrained(folder)
