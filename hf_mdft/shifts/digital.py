"""Files and resolution."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from .base import SHIFTS, Shift, side_of, to_bytes


def _to_pil(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(to_bytes(picture).transpose(1, 2, 0)))


def _from_pil(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1) / 255.0


@SHIFTS.register("jpeg")
class Jpeg(Shift):
    """JPEG compression. Its blocks are 8 pixels wide in every picture, so small pictures suffer more."""

    unit = "quality"
    constants = (50, 30, 18, 10, 6)

    def change(self, picture: np.ndarray, constant: float, rng: np.random.Generator) -> np.ndarray:
        file = io.BytesIO()
        _to_pil(picture).save(file, "JPEG", quality=constant)
        return _from_pil(Image.open(file).convert("RGB"))


@SHIFTS.register("pixelate")
class Pixelate(Shift):
    """Few large pixels."""

    unit = "large pixels along the shorter side"
    constants = (24, 20, 16, 12, 8)

    def change(self, picture: np.ndarray, constant: float, rng: np.random.Generator) -> np.ndarray:
        height, width = picture.shape[1:]
        share = min(1.0, constant / side_of(picture))
        small = _to_pil(picture).resize((round(width * share), round(height * share)), Image.Resampling.BOX)
        return _from_pil(small.resize((width, height), Image.Resampling.NEAREST))


@SHIFTS.register("scale_down")
class ScaleDown(Shift):
    """The whole picture smaller, in the middle; its border is repeated around it."""

    unit = "scale"
    constants = (0.9, 0.8, 0.7, 0.6, 0.5)

    def change(self, picture: np.ndarray, constant: float, rng: np.random.Generator) -> np.ndarray:
        height, width = picture.shape[1:]
        size = round(width * constant), round(height * constant)
        left, top = (width - size[0]) // 2, (height - size[1]) // 2
        small = _from_pil(_to_pil(picture).resize(size, Image.Resampling.LANCZOS))
        around = (top, height - size[1] - top), (left, width - size[0] - left)
        return np.pad(small, ((0, 0), *around), mode="edge")
