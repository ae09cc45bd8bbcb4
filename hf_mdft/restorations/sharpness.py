"""Restorations of noise and blur."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch.nn import functional as F

from .base import RESTORATIONS


UNITS = 32
"""Sizes are given in 1/32 of the shorter side, so that pictures of any resolution are changed alike."""

REACH = 2
"""How many pixels each way the bilateral filter looks; of large pictures, every so many."""


def unit_of(pixels: torch.Tensor) -> float:
    """One unit in pixels."""
    return min(pixels.shape[-2:]) / UNITS


def blur(pixels: torch.Tensor, size: float) -> torch.Tensor:
    """Gaussian blur; `size` is its standard deviation in units."""
    deviation, channels = size * unit_of(pixels), pixels.shape[1]
    reach = max(1, min(math.ceil(3 * deviation), *(side - 1 for side in pixels.shape[-2:])))
    offsets = torch.arange(-reach, reach + 1, device=pixels.device)
    kernel = (-0.5 * (offsets / deviation) ** 2).softmax(dim=0).to(pixels).repeat(channels, 1, 1, 1)
    padded = F.pad(pixels, (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel, groups=channels), kernel.transpose(-1, -2), groups=channels)


def sharpen(pixels: torch.Tensor, strength: float) -> torch.Tensor:
    """Unsharp mask: what a blur of one unit takes away is added, times `strength`."""
    return pixels + strength * (pixels - blur(pixels, 1.0))


def median(pixels: torch.Tensor) -> torch.Tensor:
    """Median of nine pixels, one unit apart: against single wrong pixels."""
    return torch.stack(list(_neighbors(pixels, 1).values())).median(dim=0).values


def bilateral(pixels: torch.Tensor, tolerance: float) -> torch.Tensor:
    """Mean over near pixels of like color: against noise, and edges stay (Tomasi and Manduchi 1998,
    https://doi.org/10.1109/ICCV.1998.710815); `tolerance` is the difference of colors that counts as like."""
    total, sizes = torch.zeros_like(pixels), torch.zeros_like(pixels[:, :1])
    for (y, x), near in _neighbors(pixels, REACH).items():  # one after the other: 25 copies would be too large
        unlike = (near - pixels).square().mean(dim=1, keepdim=True)
        weight = (-(y * y + x * x) / (2 * 1.2**2) - unlike / (2 * tolerance**2)).exp()
        total += weight * near
        sizes += weight
    return total / sizes


def _neighbors(pixels: torch.Tensor, reach: int) -> dict[tuple[int, int], torch.Tensor]:
    """Views of the pixels around each one, `(n, 3, height, width)`, by offset (down, right) in units (at least one
    pixel each)."""
    step, (height, width) = max(1, round(unit_of(pixels))), pixels.shape[-2:]
    padded = F.pad(pixels, (reach * step,) * 4, mode="replicate")
    offsets = range(-reach, reach + 1)
    starts = {offset: step * (offset + reach) for offset in offsets}
    return {
        (y, x): padded[..., starts[y] : starts[y] + height, starts[x] : starts[x] + width]
        for y in offsets
        for x in offsets
    }


for _size in (0.4, 0.7):
    RESTORATIONS.register(f"blur {_size:g}")(partial(blur, size=_size))
for _strength in (0.5, 1.0, 2.0):
    RESTORATIONS.register(f"sharpen {_strength:g}")(partial(sharpen, strength=_strength))
for _tolerance in (0.15, 0.3):
    RESTORATIONS.register(f"bilateral {_tolerance:g}")(partial(bilateral, tolerance=_tolerance))
RESTORATIONS.register("median")(median)
