"""Weights between two models."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def interpolate(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """State on the CPU that lies `share` of the way from `a` to `b`, in a straight line (Wortsman et al. 2021,
    https://huggingface.co/papers/2109.01903)."""
    return {
        name: torch.lerp(tensor.cpu(), b[name].cpu(), share) if tensor.is_floating_point() else tensor
        for name, tensor in a.items()
    }
