"""Light and color."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .base import SHIFTS, Shift


@SHIFTS.register("dark")
class Dark(Shift):
    """Too little light."""

    unit = "factor of all values"
    constants = (0.75, 0.55, 0.4, 0.25, 0.15)

    def change(self, picture: np.ndarray, constant: float, rng: np.random.Generator) -> np.ndarray:
        return constant * picture


@SHIFTS.register("bright")
class Bright(Shift):
    """Too much light: bright parts are lost."""

    unit = "added to all values, of the range"
    constants = (0.1, 0.2, 0.3, 0.4, 0.5)

    def change(self, picture: np.ndarray, constant: float, rng: np.random.Generator) -> np.ndarray:
        return picture + constant


@SHIFTS.register("contrast")
class Contrast(Shift):
    """Little contrast: values close to the picture's mean."""

    unit = "factor of differences from the mean"
    constants = (0.75, 0.5, 0.35, 0.22, 0.12)

    def change(self, picture: np.ndarray, constant: float, rng: np.random.Generator) -> np.ndarray:
        mean = picture.mean()
        return mean + constant * (picture - mean)


@SHIFTS.register("color_cast")
class ColorCast(Shift):
    """Lamp light: blue is weaker, and green by half as much."""

    unit = "share of blue that is lost"
    constants = (0.1, 0.2, 0.35, 0.5, 0.7)

    def change(self, picture: np.ndarray, constant: float, rng: np.random.Generator) -> np.ndarray:
        return picture * np.array([1, 1 - constant / 2, 1 - constant])[:, None, None]


@SHIFTS.register("fog")
class Fog(Shift):
    """Bright haze, denser in some places than in others."""

    unit = "share of the haze"
    constants = (0.15, 0.3, 0.45, 0.6, 0.75)

    def change(self, picture: np.ndarray, constant: float, rng: np.random.Generator) -> np.ndarray:
        coarse = Image.fromarray(rng.uniform(0.6, 1.0, (4, 4)).astype(np.float32))
        haze = np.asarray(coarse.resize(picture.shape[:0:-1], Image.Resampling.BICUBIC))
        return (1 - constant) * picture + constant * haze
