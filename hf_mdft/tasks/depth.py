"""What is black and white in gray pictures of more than eight bits: one range for all pictures of a task."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import datasets
import numpy as np
from tqdm.auto import tqdm

from ..core.cache import key_of, remember, remembered
from ..core.errors import InputError
from .decode import DEEP, Showing, open_picture
from .files import files_digest


logger = logging.getLogger(__name__)

KIND = "deep-ranges"
"""Folder of the cache with what was found."""

BITS = (8, 10, 12, 14, 16)
"""Depths of cameras, scanners and detectors."""

STATE = "say what is black and white with image_range: [LOW, HIGH]"


def find_range(sets: Sequence[datasets.Dataset], column: str, showing: Showing, where: str) -> tuple[float, float]:
    """The range of a task's deep pictures, from all of them: of whole numbers the smallest common depth that holds the
    largest (a 12-bit scan in a 16-bit file is one of 12 bits), of others 0 to 1 where all lie there.

    Args:
        sets: All of the task's data sets; the column of images is not decoded.
        column: Its name.
        showing: How pictures are shown.
        where: Names the task in messages.

    Raises:
        InputError: The values tell no range.
    """

    states = [(dataset._fingerprint, files_digest(dataset, column)) for dataset in sets]
    key = key_of("range", states, showing.key())
    found = remembered(KIND, key)
    if found is None:
        *found, reached = _extremes(sets, column, showing, where)
        if reached:  # the network's problems pass
            remember(KIND, key, found)
    low, high, whole = found
    if low is None:
        raise InputError(f"{where}: pictures of more than 8 bits without a single finite value; {STATE}")
    if whole and low >= 0 and high < 2 ** BITS[-1]:
        bits = next(bits for bits in BITS if high < 2**bits)
        said, taken = f"{bits} bits, for the largest value of all is {high:.0f}", (0.0, float(2**bits - 1))
    elif not whole and low >= 0 and high <= 1:
        said, taken = f"fractions, the largest is {high:.3g}", (0.0, 1.0)
    else:
        raise InputError(
            f"{where}: gray pictures with values from {low:.6g} to {high:.6g}, which tell no range; {STATE}"
        )
    logger.warning(
        "%s: gray pictures of more than 8 bits: %g is black, %g is white (%s); image_range: [LOW, HIGH] takes another "
        "range", where, *taken, said,
    )  # fmt: skip
    return taken


def _extremes(
    sets: Sequence[datasets.Dataset], column: str, showing: Showing, where: str
) -> tuple[float | None, float | None, bool, bool]:
    """Smallest and largest value of deep pictures, whether all are whole numbers, whether all addresses answered."""
    low, high, whole, reached = np.inf, -np.inf, True, True
    for dataset in sets:
        for value in tqdm(dataset[column], desc=f"Range of {where}", leave=False):
            try:
                image = open_picture(value, showing)
                if not image.mode.startswith(DEEP):
                    continue
                pixels = np.asarray(image)
            except Exception:  # whatever a damaged file makes a reader raise
                reached = reached and "://" not in ((value or {}).get("path") or "").removeprefix("file://")
                continue  # told of where it is read
            whole = whole and np.issubdtype(pixels.dtype, np.integer)
            finite = pixels[np.isfinite(pixels)]
            if finite.size:
                low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high, whole, reached) if np.isfinite(low) else (None, None, whole, reached)
