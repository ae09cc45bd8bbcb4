"""Restored images, made once and kept."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..core.cache import key_of, prepared
from ..tasks import Images
from .base import restore


VERSION = 1
"""Version of the kept images; another one for every change of what a restoration does."""

FILE = "pixels.npy"

BATCH = 32
"""Images restored at a time: the median of pictures of 224 pixels takes 5 MB for each."""


class RestoredImages(Images):
    """Images whose bytes were restored after the preprocessor's resize and crop, before its normalization.

    Args:
        images: The images as they are.
        names: Names of the restorations, in order.
    """

    def __init__(self, images: Images, names: Sequence[str]) -> None:
        self.shape, self.preprocessor = images.shape, images.preprocessor
        self._made = key_of("restored", VERSION, images.key, list(names))

        def make(folder: Path) -> None:
            kept = np.lib.format.open_memmap(folder / FILE, "w+", np.uint8, (len(images), *images.shape))
            for start in range(0, len(images), BATCH):
                rows = range(start, min(start + BATCH, len(images)))
                changed = restore(images.pixels(rows).float() / 255, names)
                kept[start : rows.stop] = (255 * changed).round().byte().numpy()
            kept.flush()

        self._pixels = np.load(prepared("restored", self._made, make) / FILE, mmap_mode="r")
        self._rows = np.arange(len(images))

    @property
    def key(self) -> str:
        return key_of(self._made, self._rows.tolist())

    def subset(self, rows: np.ndarray | Sequence[int]) -> Images:
        chosen = copy.copy(self)
        chosen._rows = self._rows[np.asarray(rows)]
        return chosen

    def pixels(self, indices: Sequence[int] | torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._pixels[self._rows[np.asarray(indices)]])


def restored(images: Images, names: Sequence[str]) -> Images:
    """The images after some restorations; the same images where there are none.

    Args:
        images: The images as they are.
        names: Names of the restorations, in order.

    Raises:
        InputError: There is no such restoration, or the cache cannot be written.
    """
    return RestoredImages(images, names) if names else images
