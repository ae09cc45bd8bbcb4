"""Phi: functions of task vectors, applied before they are combined. One file each."""

from .base import TRANSFORMS, Transform, transformed
from .dare import Dare
from .identity import Identity
from .iso import IsoC, IsoCts
from .lines import Lines
from .low_rank import LowRank
from .quantize import Quantize
from .sign import Sign
from .ties import Ties
from .trim import Trim
from .tsv import Tsv


__all__ = [
    "TRANSFORMS",
    "Dare",
    "Identity",
    "IsoC",
    "IsoCts",
    "Lines",
    "LowRank",
    "Quantize",
    "Sign",
    "Ties",
    "Transform",
    "Trim",
    "Tsv",
    "transformed",
]
