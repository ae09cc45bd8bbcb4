"""Which images of a data set have which shift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError
from ..tasks import Images
from .base import SHIFTS
from .images import CLEAN, ShiftedImages


AS_IS, ANY, HALF = "as-is", "any", "half:"


@dataclass(frozen=True)
class Target:
    """Where a model has to work.

    Args:
        text: Its name: `"jpeg"`; `"jpeg+fog"`, for each image one of these, drawn by its position; `"any"`, one of
            all; `"half:"` before any of them, half of the images to learn from stay clean; `"as-is"`, no shift.
        shifts: Names of the shifts; none is as-is.
        half: Whether half of the images to learn from stay clean.
    """

    text: str
    shifts: tuple[str, ...] = ()
    half: bool = False

    @classmethod
    def parse(cls, text: str) -> Target:
        """A target from its name.

        Raises:
            InputError: There is no such shift; the nearest name is suggested.
        """
        if text == AS_IS:
            return cls(text)
        names = text.removeprefix(HALF)
        shifts = SHIFTS.names() if names == ANY else list(dict.fromkeys(names.split("+")))
        for name in shifts:
            if name not in SHIFTS and name in (AS_IS, ANY):
                raise InputError(f"shift '{text}': '{name}' stands alone")
            SHIFTS.get(name)
        return cls(text, tuple(shifts), text.startswith(HALF))

    def learned(self, images: Images, severity: int, seed: int) -> Images:
        """The images to learn from. At severity 0 they are the ones given."""
        return self._shifted(images, severity, seed, self.half)

    def tested(self, images: Images, severity: int, seed: int) -> Images:
        """The images to test on, all of them shifted. Where they are those to learn from, by
        the same source, they are shifted alike."""
        return self._shifted(images, severity, seed, half=False)

    def _shifted(self, images: Images, severity: int, seed: int, half: bool) -> Images:
        if severity == 0 or not self.shifts:
            return images
        rng = np.random.default_rng(seed)
        choice = rng.integers(len(self.shifts), size=len(images))
        if half:
            choice[rng.permutation(len(images))[: len(images) // 2]] = CLEAN
        return ShiftedImages(images, [SHIFTS.get(name)() for name in self.shifts], severity, choice, seed)
