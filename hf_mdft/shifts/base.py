"""What a shift is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch

from ..core.errors import InputError
from ..core.registry import Registry


SEVERITIES = range(6)
"""0 is the picture as it is."""


class Shift(ABC):
    """A change of pictures that leaves their class what it is.

    A subclass gives five constants, for severities 1 to 5, and changes one picture at a time: what a picture becomes
    depends on nothing but itself, its position and the seed.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    """What the constants are."""
    constants: ClassVar[tuple[float, float, float, float, float]]

    @abstractmethod
    def change(self, picture: np.ndarray, constant: float, rng: np.random.Generator) -> np.ndarray:
        """One changed picture.

        Args:
            picture: Channels `(3, height, width)`, 0 to 1, float64; not to be written to.
            constant: The severity's constant.
            rng: The picture's own random numbers: the same at every severity.

        Returns:
            The same shape; what lies outside 0 to 1 is cut off.
        """

    def __call__(self, pixels: torch.Tensor, severity: int, positions: Sequence[int], seed: int = 0) -> torch.Tensor:
        """Shifted bytes `(n, 3, height, width)`.

        Args:
            pixels: Bytes `(n, 3, height, width)`.
            severity: 0 (the pictures as they are, bit by bit) to 5.
            positions: Number of each picture in its data set: with the seed, where its random numbers start, so that
                it is changed alike in every batch.
            seed: Seed of the random numbers.

        Raises:
            InputError: There is no such severity.
        """
        if severity not in SEVERITIES:
            raise InputError(f"severity must be 0 to {SEVERITIES[-1]}, got {severity}")
        if severity == 0:
            return pixels
        constant, changed = self.constants[severity - 1], torch.empty_like(pixels)
        for i, position in enumerate(positions):
            rng = np.random.default_rng([seed, int(position)])
            found = self.change(pixels[i].numpy() / 255.0, constant, rng)
            changed[i] = torch.from_numpy(to_bytes(found))
        return changed


SHIFTS: Registry[type[Shift]] = Registry("shift")


def to_bytes(picture: np.ndarray) -> np.ndarray:
    """Bytes from values of 0 to 1; what lies outside is cut off."""
    return np.rint(255 * picture.clip(0, 1)).astype(np.uint8)


def side_of(picture: np.ndarray) -> int:
    """The shorter side in pixels."""
    return min(picture.shape[1:])
