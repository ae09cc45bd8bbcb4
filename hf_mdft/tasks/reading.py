"""What is done about pictures that cannot be read, or that look alike."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..core.cache import cache_root
from ..core.errors import InputError
from .decode import Showing


if TYPE_CHECKING:
    from .images import Images


logger = logging.getLogger(__name__)

NAMED = 20
"""Bad pictures that a message names; the rest are in a file."""

DARK = 64
"""Value that some picture reaches, unless 14 bits or fewer of 16 are used."""

LOOKED_AT, NEARLY_ALL = 256, 0.9
"""Pictures that are compared, and the share that makes a warning."""


class BadPictures(InputError):
    """Pictures that cannot be read."""


def _no_range() -> tuple[float, float]:
    raise InputError("gray pictures of more than 8 bits, of which it is not known what is white: give image_range")


@dataclass(frozen=True)
class Reading:
    """How a data set's pictures are read.

    Args:
        showing: How they become RGB.
        skips: Whether those that cannot be read are left out, rather than refused.
        find_range: Finds the range of deep pictures, where there is one that needs it.
    """

    showing: Showing = Showing()
    skips: bool = False
    find_range: Callable[[], tuple[float, float]] = _no_range


def tell_of_bad(bad: Sequence[tuple[str, str]], count: int, key: str, where: str, skips: bool) -> None:
    """Name pictures that cannot be read: a warning where they are skipped.

    Args:
        bad: Name of each one, and the reason.
        count: Pictures of the data set.
        key: Names the file for those that a line does not hold.
        where: Names the data set.
        skips: Whether they are skipped.

    Raises:
        InputError: They are not.
    """
    reasons: dict[str, list[str]] = {}
    for name, reason in bad[:NAMED]:
        reasons.setdefault(reason, []).append(name)
    named, more = ", ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items()), ""
    if len(bad) > NAMED:
        path = cache_root() / "bad-images" / f"{key}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name} ({reason})\n" for name, reason in bad), encoding="utf-8")
        more = f" and {len(bad) - NAMED} more in {path}"
    line = f"{where}: {len(bad):,} of {count:,} images cannot be read: {named}{more}"
    if not skips:
        end = "none is left" if len(bad) == count else "repair or remove them, or set on_bad_image: skip"
        raise BadPictures(f"{line}; {end}")
    logger.warning("%s; they are skipped", line)


def warn_of_sameness(images: Images, where: str) -> None:
    """Warn where nearly all pictures are one flat color, black, or copies of each other, as the model sees them."""
    rows = np.unique(np.linspace(0, len(images) - 1, min(LOOKED_AT, len(images))).round().astype(int))
    pixels = images.pixels(rows.tolist())
    flat = (pixels.flatten(2).float().std(dim=2).amax(dim=1) < 1).float().mean().item()
    if flat >= NEARLY_ALL:
        logger.warning("%s: %.0f %% of the images are one flat color, as the model sees them", where, 100 * flat)
    elif (brightest := int(pixels.max())) < DARK:
        logger.warning(
            "%s: the images are nearly black as the model sees them: the largest value is %d of 255. Colors of 16 "
            "bits are read by their upper 8; convert pictures that use fewer", where, brightest,
        )  # fmt: skip
    elif len(rows) > 9:
        copies = 1 - len({image.numpy().tobytes() for image in pixels}) / len(rows)
        if copies >= NEARLY_ALL:
            logger.warning("%s: nearly all images are copies of each other (%.0f %%)", where, 100 * copies)
