"""Images under a shift, made when they are read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..core.cache import key_of
from ..core.seeds import mixed_seed
from ..tasks import Images
from .base import Shift


VERSION = 2
"""Part of the images' key; another one for every change of what a shift does."""

CLEAN = -1
"""In place of a shift's number: the image as it is."""


class ShiftedImages(Images):
    """Images whose bytes are shifted after the preprocessor's resize and crop, and before its normalization: what the
    model sees is shifted, at the resolution at which it sees it.

    Nothing is stored: pixels are shifted whenever they are read, each image alike every time.

    Args:
        images: The images as they are.
        shifts: Shifts that images may have.
        severity: Severity of the shifts, 1 to 5.
        choice: Number of each image's shift, or `CLEAN`, `(N,)`.
        seed: Seed of the random numbers; each image has its own, by this, `images` and its position there.
        rows: Which of `images`, in order; the default is all.
    """

    def __init__(
        self,
        images: Images,
        shifts: Sequence[Shift],
        severity: int,
        choice: np.ndarray,
        seed: int,
        rows: np.ndarray | None = None,
    ) -> None:
        self.shape, self.preprocessor = images.shape, images.preprocessor
        self._images, self._shifts, self._severity, self._choice, self._seed = images, shifts, severity, choice, seed
        self._rows = np.arange(len(images)) if rows is None else rows
        # Two sets of images have different noise, and one always the same.
        self._own_seed = mixed_seed(seed, int(images.key[:12], 16))

    @property
    def key(self) -> str:
        """Names these images in caches: changes with the images, their shifts and the rows."""
        how = [[shift.name for shift in self._shifts], self._severity, self._choice.tolist(), self._seed]
        return key_of("shifted", VERSION, self._images.key, how, self._rows.tolist())

    def subset(self, rows: np.ndarray | Sequence[int]) -> ShiftedImages:
        """Some of these images, by index, each shifted as here."""
        chosen = self._rows[np.asarray(rows)]
        return ShiftedImages(self._images, self._shifts, self._severity, self._choice, self._seed, chosen)

    def pixels(self, indices: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """Shifted bytes `(len(indices), 3, height, width)`."""
        positions = self._rows[np.asarray(indices)]
        pixels, choice = self._images.pixels(positions), self._choice[positions]
        for number, shift in enumerate(self._shifts):
            mine = np.flatnonzero(choice == number)
            if len(mine):
                pixels[mine] = shift(pixels[mine], self._severity, positions[mine], self._own_seed)
        return pixels
