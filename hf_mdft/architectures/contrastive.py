"""Models of images and text: experts share the base's text tower, projection and temperature."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..core.errors import InputError
from .base import ClassHead, VisionTransformer
from .finding import read_config
from .texts import check_distinct, is_empty


class Contrastive(VisionTransformer):
    """A vision tower, alone or inside a model with a text tower."""

    model_class: ClassVar[type[PreTrainedModel]]
    """The complete model."""
    padding: ClassVar[str | bool] = True
    """How its text tower was trained to read short texts; what transformers' zero-shot pipeline does, too."""

    default_head = "zero_shot"
    own_heads = False
    wrapper_prefix = "vision_model"
    shared_parts = ("visual_projection.weight", "text_projection.weight", "logit_scale", "logit_bias", "text_model.")
    feature_expression = "pooler_output"

    def tower_config(self, config: PreTrainedConfig) -> PreTrainedConfig:
        return getattr(config, "vision_config", config)

    def features(self, outputs: Any) -> torch.Tensor:
        return outputs.pooler_output

    def has_text_tower(self, config: PreTrainedConfig) -> bool:
        return config.model_type == self.model_types[0]

    def plain_model(self, folder: Path, config: PreTrainedConfig, as_classifier: bool) -> PreTrainedModel:
        # Not AutoModel, which does not know all towers. An adapter may be of the base's tower alone.
        alone = self.tower_class.__name__ in (config.architectures or ())
        kind = self.model_class if self.has_text_tower(config) and not alone else self.tower_class
        return kind.from_pretrained(folder, dtype=torch.float32)

    def plain_outputs(self, model: nn.Module, pixel_values: torch.Tensor, as_classifier: bool) -> torch.Tensor:
        _, tower = self.find_tower(model)
        return self.features(tower(pixel_values=pixel_values))

    def complete_model(self, config: PreTrainedConfig) -> PreTrainedModel | None:
        return self.model_class(config) if self.has_text_tower(config) else None

    @torch.no_grad()
    def text_embeddings(
        self, folder: Path, class_names: list[str], templates: list[str], where: str
    ) -> dict[str, torch.Tensor]:
        if not self.has_text_tower(read_config(folder, where)):
            return super().text_embeddings(folder, class_names, templates, where)
        model = self.model_class.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = _tokenizer(folder)
        rows, read = [], {}
        for class_name in class_names:
            prompts = [template.replace("{}", class_name) for template in templates]
            tokens = self._tokens(model, tokenizer, prompts, folder)
            read[class_name] = tokens["input_ids"]
            embeddings = model.get_text_features(**tokens).pooler_output
            rows.append(F.normalize(F.normalize(embeddings, dim=-1).mean(dim=0), dim=0))
        check_distinct(read, str(folder))
        return {"class_embeddings": torch.stack(rows), **self.similarity(model)}

    def similarity(self, model: PreTrainedModel) -> dict[str, torch.Tensor]:
        """Tensors of a zero-shot head that are of no class: how images are compared with texts."""
        return {"projection": model.visual_projection.weight, "logit_scale": model.logit_scale.exp()}

    def plain_similarities(self, folder: Path, texts: list[str], pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits `(N, C)` that a folder's complete model gives images for texts."""
        model = self.model_class.from_pretrained(folder, dtype=torch.float32).eval()
        tokens = self._tokens(model, _tokenizer(folder), texts, folder)
        return model(pixel_values=pixel_values, **tokens).logits_per_image

    def _tokens(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], folder: Path
    ) -> dict[str, torch.Tensor]:
        options = model.config.text_config
        try:
            length = min(options.max_position_embeddings, tokenizer.model_max_length)
            tokens = tokenizer(texts, padding=self.padding, truncation=True, max_length=length, return_tensors="pt")
        except Exception as error:  # a stranger's settings
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{folder}: its tokenizer cannot be used ({reason}); add the base's own files") from error
        if tokens.input_ids.max() >= options.vocab_size:
            raise InputError(f"{folder}: the tokenizer has more tokens than the text tower; add its own")
        return {name: tokens[name] for name in ("input_ids", "attention_mask") if name in tokens}

    def pipeline_tag(self, config: PreTrainedConfig) -> str:
        return "zero-shot-image-classification" if self.has_text_tower(config) else "image-feature-extraction"

    def loader(self, config: PreTrainedConfig) -> str:
        return self.model_class.__name__ if self.has_text_tower(config) else self.tower_class.__name__

    def save_complete(
        self,
        base: Path,
        config: PreTrainedConfig,
        tower_state: dict[str, torch.Tensor],
        head: ClassHead | None,
        folder: Path,
    ) -> None:
        """A full model where the base is one, so that zero-shot pipelines work; else the tower alone."""
        if not self.has_text_tower(config):
            return self.save_tower(config, tower_state, folder)
        model = self.model_class.from_pretrained(base, dtype=torch.float32)
        model.vision_model.load_state_dict(tower_state)
        model.save_pretrained(folder)


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # an untrusted file: its parser may raise anything
        raise InputError(f"{folder}: no tokenizer that can be read beside the base; add its files") from error
    try:
        empty = is_empty(tokenizer)
    except Exception as error:  # special tokens that are none
        raise InputError(f"{folder}: its special tokens cannot be read; add the base's own tokenizer files") from error
    if empty:
        raise InputError(f"{folder}: no tokenizer beside the base; add its files (tokenizer.json)")
    return tokenizer
