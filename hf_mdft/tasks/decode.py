"""Pictures as a viewer shows them: eight bits of red, green and blue, upright, on a background."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import fsspec
import numpy as np
from PIL import Image, ImageColor

from ..core.cache import key_of
from .color import in_srgb


FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "TGA", "TIFF",
    "WEBP",
)  # fmt: skip
"""Raster formats, which run no program: EPS starts Ghostscript. Pillow opens phones' MPO as JPEG."""

MAX_PIXELS = 178_956_970
"""Pixels of the largest picture that is opened: where Pillow refuses."""

GRAY = ("L", "LA", "La")
"""Pillow's modes of gray of eight bits."""

DEEP = ("I", "F")
"""So begin Pillow's modes of gray with more than eight bits (`I;16`): conversion to RGB cuts off above 255."""

SHALLOW = {"L;2": 85, "L;4": 17}
"""Gray of two and four bits, as Pillow calls what a PNG holds, and by what it multiplies such values."""

GRAY_ALPHA_16 = "LA;16B"
"""So Pillow calls a PNG of gray with transparency of sixteen bits each, of which it reads the upper eight."""

ALL_16 = (0.0, 65535.0)
"""The range that the upper eight of sixteen bits stand for."""

ORIENTATION, WHITENESS = 0x0112, 262
"""Numbers of entries of EXIF and TIFF: how a picture is turned, and whether white is the largest value or zero."""

TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By orientation: what makes the picture upright. `ImageOps.exif_transpose` does the same, and rewrites all other
entries, which fails where they are damaged."""


class DeepPicture(ValueError):
    """Gray of more than eight bits, of which it is not known what is black and white."""


@dataclass(frozen=True)
class Showing:
    """How pictures become RGB of eight bits.

    Args:
        range: Values that are black and white in gray of more than eight bits; `None` where they are not known.
        background: Color behind transparent parts.
        max_pixels: Pixels of the largest picture that is opened.
    """

    range: tuple[float, float] | None = None
    background: str = "white"
    max_pixels: int = MAX_PIXELS

    def key(self) -> str:
        """Changes with what changes pixels, or what can be read."""
        return key_of(self.range, ImageColor.getrgb(self.background), self.max_pixels)


def open_picture(value: Mapping[str, Any] | None, showing: Showing) -> Image.Image:
    """A picture as its file has it, from what a column of images holds.

    Raises:
        ValueError: There is none, it is no regular file, or too large. Pillow and readers of addresses raise whatever
            they stumble over.
    """
    if value is None or (value.get("bytes") is None and value.get("path") is None):
        raise ValueError("empty")
    if value["bytes"] is not None:
        source: Any = io.BytesIO(value["bytes"])
    elif "://" in value["path"].removeprefix("file://"):
        local = value["path"].rsplit("::", 1)[-1].removeprefix("file://")  # of a file in an archive, the archive
        if "://" not in local and not stat.S_ISREG(os.stat(local).st_mode):
            raise ValueError("no regular file")
        with fsspec.open(value["path"], "rb") as file:
            source = io.BytesIO(file.read())
    else:
        source = value["path"].removeprefix("file://")
        if not stat.S_ISREG(os.stat(source).st_mode):
            raise ValueError("no regular file")
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours is stated, and looked at before decoding
    try:
        image = Image.open(source, formats=_formats())
        width, height = image.size
        if width * height > showing.max_pixels:
            raise ValueError(f"{width} x {height} pixels, more than max_pixels: {showing.max_pixels}")
        if stored_as(image) == GRAY_ALPHA_16 and showing.range not in (None, ALL_16):
            raise ValueError("gray of 16 bits with transparency, read by its upper 8: save it without transparency")
        load(image)
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return image


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def load(image: Image.Image) -> None:
    """Read a picture's pixels, where that is still to be done. TIFF is turned as its entries say, which are taken out;
    the gray of a PNG that is transparent is one of the pixels' values, which Pillow leaves as it is in the file."""
    factor, hidden = SHALLOW.get(stored_as(image)), image.info.get("transparency")
    if factor and isinstance(hidden, int):
        image.info["transparency"] = hidden % (255 // factor + 1) * factor
    image.load()


def stored_as(image: Image.Image) -> str:
    """What Pillow calls the form of pixels that are still in their file."""
    tiles = getattr(image, "tile", None)
    return tiles[0][3] if tiles and isinstance(tiles[0][3], str) else ""


def decode(value: Mapping[str, Any] | None, showing: Showing = Showing()) -> Image.Image:
    """A picture in RGB as a viewer shows it, from what a column of images holds.

    Raises:
        DeepPicture: It has more than eight bits, and no range is known.
        ValueError: See `open_picture`.
    """
    return as_shown(open_picture(value, showing), showing)


def as_shown(image: Image.Image, showing: Showing = Showing()) -> Image.Image:
    """A picture in RGB as a viewer shows it: turned as its EXIF data say, its colors in sRGB, transparent parts on the
    background, gray of more than eight bits scaled from its range.

    Raises:
        DeepPicture: It has more than eight bits, and no range is known.
    """
    load(image)
    turn = TURNED.get(_orientation(image))
    if image.mode.startswith(DEEP):
        if showing.range is None:
            raise DeepPicture(f"mode {image.mode} is gray of more than 8 bits, of which it is not known what is white")
        low, high = showing.range
        image = _scaled(image, *((high, low) if white_is_zero(image) else (low, high)))
    if turn is not None:
        image = image.transpose(turn)
    if not image.has_transparency_data:
        image = in_srgb(image)
        return image if image.mode == "RGB" else image.convert("RGB")
    hidden = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(hidden, tuple) and max(hidden) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in hidden)  # of 16 bits, as the pixels were once
    shown = image.convert("RGBA")
    if image.mode in GRAY and image.info.get("icc_profile"):  # profiles of gray are for gray alone
        colors = in_srgb(shown.getchannel("R"), image.info).convert("RGB")
        colors.putalpha(shown.getchannel("A"))
        shown = colors
    else:
        shown = in_srgb(shown)
    return Image.alpha_composite(Image.new("RGBA", image.size, showing.background), shown).convert("RGB")


def white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF says that its smallest value is white; Pillow heeds it for eight bits only."""
    return getattr(image, "tag_v2", {}).get(WHITENESS) == 0


def _scaled(image: Image.Image, low: float, high: float) -> Image.Image:
    pixels = np.asarray(image)
    values = (pixels.astype(np.float64) - low) * (255 / (high - low))
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinity")
    scaled = Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    if profile := image.info.get("icc_profile"):
        scaled.info["icc_profile"] = profile
    if isinstance(hidden := image.info.get("transparency"), int):  # the one value that is transparent
        scaled.putalpha(Image.fromarray(np.where(pixels == hidden, 0, 255).astype(np.uint8)))
    return scaled


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # a stranger's bytes: the parser raises whatever it stumbles over
        return 1
