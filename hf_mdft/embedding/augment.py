"""Augmentation of images, for consistency training: every change leaves the class, as far as can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch.nn import functional as F

from .views import jitter, step_of


BRIGHTNESS, CONTRAST, SATURATION, TINT, NOISE = 0.3, 0.5, 0.7, 0.2, 0.15
"""Largest strengths: of brightness, what is added; of contrast, saturation and a channel's gain, distance from 1; of
noise, its standard deviation. All of pixels in [0, 1]."""

BLUR, TRANSLATION, CUTOUT = 1.0, 4, 0.375
"""Largest standard deviation of the blur and largest translation, in steps of 1/32 of the side; largest side of the
square that is cut out, as a share of the image's."""


MILD = 0.1
"""Largest relative change of brightness and contrast by the mild augmentation; half of it of a channel's gain.
Noise is up to 0.03, and the square that is cut out of half of the images has a quarter of their side."""


def mild_augment(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images, each changed a little in its own way: brightness, contrast, tint, noise, cutout, and a translation by up
    to one step. See `strong_augment`, whose arguments it has."""
    pixels = pixels * (1 + _uniform(pixels, generator, MILD))
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = mean + (1 + _uniform(pixels, generator, MILD)) * (pixels - mean)
    pixels = pixels * (1 + _uniform(pixels, generator, MILD / 2, channels=3))
    noise = 0.03 * torch.rand(len(pixels), 1, 1, 1, generator=generator)
    pixels = pixels + (noise * torch.randn(pixels.shape, generator=generator)).to(pixels)
    chosen = torch.rand(len(pixels), 1, generator=generator) < 0.5
    pixels = _cut_out(pixels, generator, 0.25 * chosen)
    return jitter(pixels.clamp(0, 1), generator)


def strong_augment(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images, each changed in its own way: every change below is made to a random half of them.

    In the manner of RandAugment (Cubuk et al. 2020, https://huggingface.co/papers/1909.13719) and Cutout (DeVries and
    Taylor 2017, https://huggingface.co/papers/1708.04552): translation, brightness, contrast, saturation, tint, blur,
    noise, cutout. No flips, turns, zooms or shifts of hue: they change digits, signs and colors.

    Args:
        pixels: Images `(n, 3, height, width)` in [0, 1].
        generator: Generator on the CPU, so that all devices make the same choices.

    Returns:
        Images of the same shape, type and range.
    """
    for change in (_translate, _brightness, _contrast, _saturation, _tint, _blur, _noise, _cutout):
        changed = change(pixels, generator).clamp(0, 1)
        chosen = torch.rand(len(pixels), 1, 1, 1, generator=generator) < 0.5
        pixels = torch.where(chosen.to(pixels.device), changed, pixels)
    return pixels


def _uniform(like: torch.Tensor, generator: torch.Generator, largest: float, channels: int = 1) -> torch.Tensor:
    """Random numbers in [-largest, largest], one for each image (and channel)."""
    drawn = torch.rand(len(like), channels, 1, 1, generator=generator)
    return (largest * (2 * drawn - 1)).to(like)


def _translate(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return jitter(pixels, generator, TRANSLATION)


def _brightness(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return pixels + _uniform(pixels, generator, BRIGHTNESS)


def _contrast(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (1 + _uniform(pixels, generator, CONTRAST)) * (pixels - mean)


def _saturation(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    gray = pixels.mean(dim=1, keepdim=True)
    return gray + (1 + _uniform(pixels, generator, SATURATION)) * (pixels - gray)


def _tint(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return pixels * (1 + _uniform(pixels, generator, TINT, channels=3))


def _blur(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    count, channels, height, width = pixels.shape
    step = step_of(pixels)
    sizes = (BLUR * step * torch.rand(count, 1, generator=generator)).clamp(min=1e-2)
    reach = min(2 * step, height - 1, width - 1)
    offsets = torch.arange(-reach, reach + 1)
    kernels = (-0.5 * (offsets / sizes) ** 2).softmax(dim=-1).to(pixels)
    kernels = kernels.repeat_interleave(channels, dim=0)[:, None, None]  # one for each image's channel
    flat = F.pad(pixels, (reach,) * 4, mode="replicate").reshape(1, count * channels, height + 2 * reach, -1)
    flat = F.conv2d(flat, kernels, groups=count * channels)
    flat = F.conv2d(flat, kernels.transpose(-1, -2), groups=count * channels)
    return flat.reshape(pixels.shape)


def _noise(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    size = NOISE * torch.rand(len(pixels), 1, 1, 1, generator=generator)
    return pixels + (size * torch.randn(pixels.shape, generator=generator)).to(pixels)


def _cutout(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return _cut_out(pixels, generator, CUTOUT * torch.rand(len(pixels), 1, generator=generator))


def _cut_out(pixels: torch.Tensor, generator: torch.Generator, share: torch.Tensor) -> torch.Tensor:
    """A square in the image's mean color; its side is a share `(n, 1)` of the image's."""
    inside = torch.ones((), dtype=torch.bool)
    for side, shape in ((pixels.shape[-2], (1, -1, 1)), (pixels.shape[-1], (1, 1, -1))):
        length = (share * side).round()
        start = (torch.rand(len(pixels), 1, generator=generator) * (side - length + 1)).floor()
        place = torch.arange(side)
        inside = inside & ((place >= start) & (place < start + length)).view(len(pixels), *shape)
    return torch.where(inside.to(pixels.device), pixels.mean(dim=(2, 3), keepdim=True), pixels)


Augmentation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]

AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType({"mild": mild_augment, "strong": strong_augment})
"""By name."""
