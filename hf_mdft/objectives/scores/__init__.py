"""Label-free scores of a specialist against its expert: pure functions of their outputs on unlabelled images.

A new one is one file and one registration. Higher means that the specialist is better, 0 that nothing speaks for
either.
"""

from .aetta import aetta
from .agreement import agreement, agreement_by_image
from .base import SCORES, Evidence, Outputs, Score
from .class_drift import class_drift
from .consistency import consistency
from .ensv import ensv
from .mano import mano
from .mutual_information import mutual_information
from .nuclear_norm import nuclear_norm
from .snd import snd
from .transport import transport


VERSION = 1
"""Changes with what any of them computes, so that no value that older code found is used."""

__all__ = [
    "SCORES",
    "VERSION",
    "Evidence",
    "Outputs",
    "Score",
    "aetta",
    "agreement",
    "agreement_by_image",
    "class_drift",
    "consistency",
    "ensv",
    "mano",
    "mutual_information",
    "nuclear_norm",
    "snd",
    "transport",
]
