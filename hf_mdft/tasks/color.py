"""Color profiles: what a viewer shows of pictures whose colors are not sRGB, as those of phones and cameras."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms


logger = logging.getLogger(__name__)

ROUNDING = 1
"""Levels of 255 by which profiles of sRGB differ."""

NEARLY_ALL = 0.95
"""Share of colors that they move no further: the most saturated ones follow the last digits of a profile."""


def in_srgb(image: Image.Image, info: Mapping[Any, Any] | None = None) -> Image.Image:
    """A picture in sRGB, by the ICC profile in its file; as it is where there is none, or none that fits it. (Models
    are trained on sRGB: the same numbers are duller colors there than in Display P3 or Adobe RGB.)

    Args:
        image: The picture.
        info: Where the profile is; the default is the picture's own.
    """
    profile = (image.info if info is None else info).get("icc_profile")
    if not profile:
        return image
    image = image.convert("RGB") if image.mode == "P" else image
    transform = _transform(bytes(profile), image.mode)
    return image if transform is None else ImageCms.applyTransform(image, transform)


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; `None` where it is sRGB (by what it does, for linear profiles are called sRGB too),
    damaged, or of other pictures, which viewers ignore."""
    if mode not in ("RGB", "RGBA", "CMYK", "L"):
        return None
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        shown = "RGBA" if mode == "RGBA" else "RGB"
        transform = ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), mode, shown)
        return None if _changes_nothing(transform, mode) else transform
    except ImportError:
        logger.warning("this Pillow was built without littlecms, so colors are read as if all were sRGB")
        return None
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether all gray and nearly all colors stay as they are, but for rounding."""
    levels = np.arange(0, 256, 17)
    gray = np.arange(256)[:, None].repeat(3, axis=1)
    colors = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    for values, share in ((gray, 1.0), (colors, NEARLY_ALL)):
        given = Image.fromarray(values[None].astype(np.uint8)).convert(mode)
        shown = ImageCms.applyTransform(given, transform).convert("RGB")
        moved = np.abs(np.asarray(shown).astype(int) - np.asarray(given.convert("RGB")))
        if (moved <= ROUNDING).mean() < share:
            return False
    return True
