"""Color profiles: what a viewer shows of pictures whose colors are not sRGB, as those of phones and cameras."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from PIL import Image, ImageCms


logger = logging.getLogger(__name__)


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
    """From a profile to sRGB; `None` where it is sRGB, damaged, or of other pictures, which viewers ignore."""
    if mode not in ("RGB", "RGBA", "CMYK", "L"):
        return None
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(own):
            return None
        shown = "RGBA" if mode == "RGBA" else "RGB"
        return ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), mode, shown)
    except ImportError:
        logger.warning("this Pillow was built without littlecms, so colors are read as if all were sRGB")
        return None
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
