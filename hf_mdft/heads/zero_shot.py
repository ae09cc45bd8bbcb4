"""CLIP's classifier: text embeddings of the class names."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .base import HEADS, Head


@HEADS.register("zero_shot")
class ZeroShotHead(Head):
    """`scale * cos(projection(features), class embedding)` (CLIP, Radford et al. 2021,
    https://huggingface.co/papers/2103.00020).

    Tensors, as `Architecture.text_embeddings` gives them: `class_embeddings` `(C, dim)`, unit length; `projection`
    `(dim, width)`, the base's visual projection; `logit_scale` `()`, the base's inverse temperature.
    """

    tensor_names = ("class_embeddings", "projection", "logit_scale")
    trained_names = ("class_embeddings", "projection")

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        embeddings = F.normalize(F.linear(features.float(), self.projection), dim=-1)
        return self.logit_scale * F.linear(embeddings, self.class_embeddings)

    def trainable(self, full: bool = True) -> Head:
        """A copy to train; unless `full`, the projection stays the base's, as it does for every other task."""
        head = super().trainable(full)
        head.projection.requires_grad_(full)
        return head
