"""Views of an image that change no class: translations by whole pixels.

No flips, turns or crops: they change digits, signs and letters. Nothing that interpolates either: small images blur,
which is not how the model's images look (rotations and zooms of a few per cent took away half of what phase 2 gains).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


Offset = tuple[int, int]

TEST_VIEWS: tuple[Offset, ...] = (
    (0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1),
)  # fmt: skip
"""Offsets, in steps, of test-time augmentation; the image as it is comes first."""

TEACHER_VIEWS: tuple[Offset, ...] = (
    *TEST_VIEWS,
    (2, 0), (-2, 0), (0, 2), (0, -2),
    (2, 1), (2, -1), (-2, 1), (-2, -1), (1, 2), (-1, 2), (1, -2), (-1, -2),
)  # fmt: skip
"""Offsets over which the teacher averages its reference: all up to two steps each way but for the corners. Experts of
pools A and B over them have 0.7 points more than over `TEST_VIEWS`; one step further there is less again."""

HELD_OUT_VIEWS: tuple[Offset, ...] = ((2, 2), (-2, -2), (2, -2), (-2, 2))
"""Those corners, which no target is made from: held-out evidence for the gate."""

FEW_VIEWS = TEST_VIEWS[:5]
"""Offsets over which other models are averaged, and under which predictions should be consistent."""


def step_of(pixel_values: torch.Tensor) -> int:
    """One step in pixels: 1/32 of the image's side, at least one pixel."""
    return max(1, round(pixel_values.shape[-1] / 32))


def translate(pixel_values: torch.Tensor, offset: Offset) -> torch.Tensor:
    """Images `(batch, 3, height, width)` moved by an offset `(right, down)` in steps; the border is repeated."""
    if offset == (0, 0):
        return pixel_values
    step, (height, width) = step_of(pixel_values), pixel_values.shape[-2:]
    border = step * max(map(abs, offset))
    padded = F.pad(pixel_values, (border,) * 4, mode="replicate")
    top, left = border - offset[1] * step, border - offset[0] * step
    return padded[..., top : top + height, left : left + width]


def jitter(pixel_values: torch.Tensor, generator: torch.Generator, steps: int = 1) -> torch.Tensor:
    """Images `(batch, 3, height, width)`, each moved by a random offset of its own; the border is repeated.

    Args:
        pixel_values: Images `(batch, 3, height, width)`.
        generator: Generator of the offsets.
        steps: Largest offset each way, in steps.
    """
    reach, (height, width) = steps * step_of(pixel_values), pixel_values.shape[-2:]
    padded = F.pad(pixel_values, (reach,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * reach + 1, (2, len(pixel_values)), generator=generator).to(pixel_values.device)
    device = pixel_values.device
    rows = offsets[0][:, None] + torch.arange(height, device=device)
    columns = offsets[1][:, None] + torch.arange(width, device=device)
    image = torch.arange(len(pixel_values), device=device)[:, None, None]
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
