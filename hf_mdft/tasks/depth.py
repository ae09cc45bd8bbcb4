"""What is black and white in gray pictures of more than eight bits: one range for all pictures of a task."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
from tqdm.auto import tqdm

from ..core.cache import key_of, prepared
from ..core.errors import InputError
from .decode import DEEP, Showing, open_picture
from .images import local_files


logger = logging.getLogger(__name__)

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

    def make(folder: Path) -> None:
        (folder / "range.json").write_text(json.dumps(_extremes(sets, column, showing, where)), encoding="utf-8")

    states = [(dataset._fingerprint, local_files(dataset, column)) for dataset in sets]
    found = prepared("ranges", key_of("range", states, showing.key()), make) / "range.json"
    low, high, whole = json.loads(found.read_text(encoding="utf-8"))
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
) -> tuple[float | None, float | None, bool]:
    """Smallest and largest value of deep pictures, and whether all are whole numbers."""
    low, high, whole = np.inf, -np.inf, True
    for dataset in sets:
        for value in tqdm(dataset[column], desc=f"Range of {where}", leave=False):
            try:
                image = open_picture(value, showing)
                if not image.mode.startswith(DEEP):
                    continue
                pixels = np.asarray(image)
            except Exception:  # whatever a damaged file makes a reader raise
                continue  # told of where it is read
            whole = whole and np.issubdtype(pixels.dtype, np.integer)
            finite = pixels[np.isfinite(pixels)]
            if finite.size:
                low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high, whole) if np.isfinite(low) else (None, None, whole)
