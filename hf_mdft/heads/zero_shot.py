"""CLIP's classifier: text embeddings of the class names."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPModel

from ..core.errors import InputError
from .base import HEADS, Head


@HEADS.register("zero_shot")
class ZeroShotHead(Head):
    """`scale * cos(projection(features), class embedding)` (CLIP, Radford et al. 2021,
    https://huggingface.co/papers/2103.00020).

    Tensors: `class_embeddings` `(C, dim)`, unit length; `projection` `(dim, width)`, the base's visual projection;
    `logit_scale` `()`, the base's inverse temperature.
    """

    tensor_names = ("class_embeddings", "projection", "logit_scale")
    trained_names = ("class_embeddings", "projection")

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        embeddings = F.normalize(F.linear(features.float(), self.projection), dim=-1)
        return self.logit_scale * F.linear(embeddings, self.class_embeddings)

    @classmethod
    @torch.no_grad()
    def from_text(cls, folder: Path, class_names: list[str], templates: list[str]) -> ZeroShotHead:
        """Head from a `CLIPModel` folder: per class, the mean of the unit-length text embeddings of all templates."""
        model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # a stranger's file: the parser raises whatever it stumbles over
            raise InputError(f"{folder}: no tokenizer that can be read beside the base; add its files") from error
        rows = []
        for class_name in class_names:
            prompts = [template.replace("{}", class_name) for template in templates]
            tokens = tokenizer(prompts, padding=True, truncation=True, return_tensors="pt")
            embeddings = model.get_text_features(**tokens).pooler_output
            rows.append(F.normalize(F.normalize(embeddings, dim=-1).mean(dim=0), dim=0))
        return cls(
            class_names,
            class_embeddings=torch.stack(rows),
            projection=model.visual_projection.weight,
            logit_scale=model.logit_scale.exp(),
        )
