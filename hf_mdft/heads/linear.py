"""A linear classifier."""

from __future__ import annotations

import torch

from .base import HEADS, Head


@HEADS.register("linear")
class LinearHead(Head):
    """`features @ weight.T + bias`, with `weight` `(C, width)` and `bias` `(C,)`."""

    tensor_names = ("weight", "bias")
    trained_names = class_tensors = tensor_names

    @property
    def width(self) -> int:
        return self.weight.shape[1]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(features.float(), self.weight, self.bias)

    def linear(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.weight, self.bias
