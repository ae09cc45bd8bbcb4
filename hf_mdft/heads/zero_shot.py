"""Classifiers of CLIP and SigLIP: text embeddings of the class names."""

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
    class_tensors = ("class_embeddings",)
    number_tensors = ("logit_scale",)
    trained_names = ("class_embeddings", "projection")

    @property
    def width(self) -> int:
        return self.projection.shape[1]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        embeddings = F.normalize(F.linear(features.float(), self.projection), dim=-1)
        return self.logit_scale * F.linear(embeddings, self.class_embeddings)

    def trainable(self, full: bool = True) -> Head:
        """A copy to train; unless `full`, the projection stays the base's, as it does for every other task."""
        head = super().trainable(full)
        head.projection.requires_grad_(full)
        return head


@HEADS.register("zero_shot_sigmoid")
class SigmoidHead(ZeroShotHead):
    """The same with the base's `logit_bias` `()` (SigLIP, Zhai et al. 2023,
    https://huggingface.co/papers/2303.15343): logits of a sigmoid for each class alone; among the classes of a task
    it changes nothing."""

    tensor_names = (*ZeroShotHead.tensor_names, "logit_bias")
    number_tensors = ("logit_scale", "logit_bias")

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(features) + self.logit_bias
