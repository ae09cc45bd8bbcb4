"""Phi: functions of task vectors, applied before they are combined. One file each."""

from .base import TRANSFORMS, Transform
from .identity import Identity
from .ties import Ties
from .trim import Trim


__all__ = ["TRANSFORMS", "Identity", "Ties", "Transform", "Trim"]
