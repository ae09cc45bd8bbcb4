"""Restorations of brightness, contrast and color."""

from __future__ import annotations

from functools import partial

import torch

from .base import RESTORATIONS


CUT = 0.02
"""Share of pixels at either end that may be cut off when contrast is stretched: single hot pixels do not count."""

LEAST_SPREAD = 0.05
"""A picture of nearly one color is not stretched further than from this spread: it would be noise."""


def stretch(pixels: torch.Tensor, channels: bool) -> torch.Tensor:
    """Contrast such that all but `CUT` of the pixels at either end fill the range.

    Args:
        pixels: Images `(n, 3, height, width)` in [0, 1].
        channels: Whether each channel is stretched by itself, which takes away a color cast as well.
    """
    flat = pixels.flatten(2) if channels else pixels.flatten(1).unsqueeze(1)
    flat = flat.sort(dim=-1).values
    last = flat.shape[-1] - 1
    low, high = (flat[..., round(share * last), None, None] for share in (CUT, 1 - CUT))
    return (pixels - low) / (high - low).clamp(min=LEAST_SPREAD)


def gray_world(pixels: torch.Tensor) -> torch.Tensor:
    """Channels with the same mean."""
    means = pixels.mean(dim=(2, 3), keepdim=True)
    return pixels * means.mean(dim=1, keepdim=True) / means.clamp(min=0.02)


def gamma(pixels: torch.Tensor, power: float) -> torch.Tensor:
    """Middle tones brighter (a power below 1) or darker; black and white stay."""
    return pixels.clamp(min=1e-4) ** power


def contrast(pixels: torch.Tensor, factor: float) -> torch.Tensor:
    """Distances from the picture's mean, times a factor."""
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    return mean + factor * (pixels - mean)


def black_point(pixels: torch.Tensor, level: float) -> torch.Tensor:
    """All up to a level becomes black; white stays. It takes noise off a dark ground."""
    return (pixels - level) / (1 - level)


def white_point(pixels: torch.Tensor, level: float) -> torch.Tensor:
    """All within a level of white becomes white; black stays. It takes noise off a light ground."""
    return pixels / (1 - level)


def darken(pixels: torch.Tensor, factor: float) -> torch.Tensor:
    """Every value times a factor below 1."""
    return factor * pixels


def invert(pixels: torch.Tensor) -> torch.Tensor:
    """The negative."""
    return 1 - pixels


RESTORATIONS.register("stretch")(partial(stretch, channels=False))
RESTORATIONS.register("stretch channels")(partial(stretch, channels=True))
RESTORATIONS.register("gray world")(gray_world)
RESTORATIONS.register("invert")(invert)
for _power in (0.7, 1.4):
    RESTORATIONS.register(f"gamma {_power:g}")(partial(gamma, power=_power))
for _factor in (0.7, 1.4, 2.0):
    RESTORATIONS.register(f"contrast {_factor:g}")(partial(contrast, factor=_factor))
for _level in (0.1, 0.2):
    RESTORATIONS.register(f"black point {_level:g}")(partial(black_point, level=_level))
for _level in (0.15, 0.3):
    RESTORATIONS.register(f"white point {_level:g}")(partial(white_point, level=_level))
RESTORATIONS.register("darken 0.75")(partial(darken, factor=0.75))
