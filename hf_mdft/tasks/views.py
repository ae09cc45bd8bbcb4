"""Views of an image that change no class: small translations, and for training small affine changes.

No flips, quarter turns or crops: they change digits, signs and letters.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


Offset = tuple[int, int]

TEACHER_VIEWS: tuple[Offset, ...] = (
    (0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1),
)  # fmt: skip
"""Offsets, in steps, over which the teacher averages its first model; the image as it is comes first."""

FEW_VIEWS = TEACHER_VIEWS[:5]
"""The same for its other models."""

JUDGE_VIEWS: tuple[Offset, ...] = ((2, 0), (-2, 0), (0, 2), (0, -2))
"""Offsets that neither the teacher nor its targets have seen: fresh evidence for the gate."""


def step_of(pixel_values: torch.Tensor) -> int:
    """One step in pixels: 1/32 of the image's side, at least one pixel."""
    return max(1, round(pixel_values.shape[-1] / 32))


def translate(pixel_values: torch.Tensor, offset: Offset) -> torch.Tensor:
    """Images `(batch, 3, height, width)` moved by an offset in steps; the border is repeated."""
    if offset == (0, 0):
        return pixel_values
    step, (height, width) = step_of(pixel_values), pixel_values.shape[-2:]
    border = step * max(map(abs, offset))
    padded = F.pad(pixel_values, (border,) * 4, mode="replicate")
    top, left = border - offset[1] * step, border - offset[0] * step
    return padded[..., top : top + height, left : left + width]


def augment(pixel_values: torch.Tensor, generator: torch.Generator, strength: float = 1.0) -> torch.Tensor:
    """Every image turned, scaled, stretched and moved a little, each by an amount of its own.

    At strength 1 by up to 10 degrees, 15 %, 7.5 % and 1/16 of the side each way: no letter, digit or sign becomes
    another one. The border is repeated.
    """
    count = len(pixel_values)

    def amounts(largest: float) -> torch.Tensor:
        return strength * largest * (2 * torch.rand(count, generator=generator) - 1)

    angle, scale, stretch = amounts(math.pi / 18), 1 + amounts(0.15), 1 + amounts(0.075)
    sine, cosine = angle.sin() * scale, angle.cos() * scale
    # Sampling coordinates run from -1 to 1, so that 1/16 of the side is 1/8.
    rows = [cosine, -sine * stretch, amounts(1 / 8), sine, cosine * stretch, amounts(1 / 8)]
    grid = F.affine_grid(torch.stack(rows, dim=1).view(count, 2, 3), list(pixel_values.shape), align_corners=False)
    grid = grid.to(pixel_values)
    return F.grid_sample(pixel_values, grid, mode="bilinear", padding_mode="border", align_corners=False)


def jitter(pixel_values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Every image moved by an offset of its own, up to one step each way."""
    step, (height, width) = step_of(pixel_values), pixel_values.shape[-2:]
    padded = F.pad(pixel_values, (step,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * step + 1, (2, len(pixel_values)), generator=generator).to(pixel_values.device)
    device = pixel_values.device
    rows = offsets[0][:, None] + torch.arange(height, device=device)
    columns = offsets[1][:, None] + torch.arange(width, device=device)
    image = torch.arange(len(pixel_values), device=device)[:, None, None]
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
