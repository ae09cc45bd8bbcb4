"""Shifts: pictures as another camera, lens, lamp or file format would give them, in five severities.

Small implementations of our own in the way of ImageNet-C (Hendrycks and Dietterich 2019,
https://huggingface.co/papers/1903.12261); constants are in units of the picture's side and range, so that pictures of
32 and of 224 pixels are shifted comparably. No flips and turns: they change digits, signs and letters.
"""

from . import blur, digital, light, noise  # noqa: F401  (registration)
from .base import SEVERITIES, SHIFTS, Shift
from .images import ShiftedImages
from .target import AS_IS, Target


__all__ = ["AS_IS", "SEVERITIES", "SHIFTS", "Shift", "ShiftedImages", "Target"]
