"""Blur; the border is repeated."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from .base import SHIFTS, Shift, side_of


def _filtered(picture: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The picture under a kernel `(2r + 1, 2r + 1)` that is the same turned by 180 degrees; by FFT, for kernels of
    large pictures are large."""
    reach = len(kernel) // 2
    padded = np.pad(picture, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    size = padded.shape[1:]
    found = np.fft.irfft2(np.fft.rfft2(padded) * np.fft.rfft2(kernel / kernel.sum(), size), size)
    return found[:, 2 * reach :, 2 * reach :]


@lru_cache
def _gaussian(deviation: float) -> np.ndarray:
    """Each pixel's share of a Gaussian, not its value in the middle: it may be narrower than a pixel."""
    reach = math.ceil(3 * deviation)
    below = np.array([math.erf((i - 0.5) / deviation / 2**0.5) for i in range(-reach, reach + 2)])
    return np.outer(np.diff(below), np.diff(below))


@lru_cache
def _disk(radius: float) -> np.ndarray:
    """A disk whose rim is as soft as one pixel."""
    line = np.arange(-math.ceil(radius), math.ceil(radius) + 1)
    return (radius + 0.5 - np.hypot(line[:, None], line)).clip(0, 1)


def _line(length: float, angle: float) -> np.ndarray:
    """A line through the middle, its points shared between the four pixels around each."""
    reach = math.ceil(length / 2) + 1
    kernel, along = np.zeros((2 * reach + 1,) * 2), np.linspace(-length / 2, length / 2, 8 * math.ceil(length) + 1)
    across, down = reach + along * math.cos(angle), reach + along * math.sin(angle)
    column, row = np.floor(across).astype(int), np.floor(down).astype(int)
    x, y = across - column, down - row
    for i, j, weight in ((0, 0, (1 - y) * (1 - x)), (0, 1, (1 - y) * x), (1, 0, y * (1 - x)), (1, 1, y * x)):
        np.add.at(kernel, (row + i, column + j), weight)
    return kernel


@SHIFTS.register("gaussian_blur")
class GaussianBlur(Shift):
    """Gaussian blur: a soft lens, or a picture that was enlarged."""

    unit = "standard deviation, of the side"
    constants = (0.012, 0.02, 0.03, 0.045, 0.06)

    def change(self, picture: np.ndarray, constant: float, rng: np.random.Generator) -> np.ndarray:
        return _filtered(picture, _gaussian(constant * side_of(picture)))


@SHIFTS.register("motion_blur")
class MotionBlur(Shift):
    """A camera that moves straight on, in a direction of its own for each picture."""

    unit = "length of the way, of the side"
    constants = (0.06, 0.1, 0.15, 0.2, 0.28)

    def change(self, picture: np.ndarray, constant: float, rng: np.random.Generator) -> np.ndarray:
        return _filtered(picture, _line(constant * side_of(picture), math.pi * rng.random()))


@SHIFTS.register("defocus")
class Defocus(Shift):
    """A lens out of focus: points become disks."""

    unit = "radius of the disk, of the side"
    constants = (0.02, 0.035, 0.05, 0.07, 0.1)

    def change(self, picture: np.ndarray, constant: float, rng: np.random.Generator) -> np.ndarray:
        return _filtered(picture, _disk(constant * side_of(picture)))
