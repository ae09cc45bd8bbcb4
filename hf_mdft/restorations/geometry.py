"""Restorations of scale."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn import functional as F

from .base import RESTORATIONS


def zoom(pixels: torch.Tensor, factor: float) -> torch.Tensor:
    """The middle of the picture `factor` times as large, bicubic; below 1 its border is repeated around it."""
    height, width = pixels.shape[-2:]
    size = (round(height * factor), round(width * factor))
    scaled = F.interpolate(pixels, size=size, mode="bicubic", align_corners=False, antialias=True)
    if factor > 1:
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        return scaled[..., top : top + height, left : left + width]
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return F.pad(scaled, (left, width - size[1] - left, top, height - size[0] - top), mode="replicate")


for _factor in (0.8, 0.9, 1.1, 1.25):
    RESTORATIONS.register(f"zoom {_factor:g}")(partial(zoom, factor=_factor))
