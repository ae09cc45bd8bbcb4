"""Label-free scores of a specialist against its expert: pure functions of their outputs on unlabelled images.

A new one is one file and one registration. Higher means that the specialist is better, 0 that nothing speaks for
either.
"""

from . import (
    aetta,
    agreement,
    class_drift,
    consistency,
    ensv,
    mano,
    mutual_information,
    nuclear_norm,
    snd,
    transport,
)
from .base import SCORES, Evidence, Outputs, Score


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
    "class_drift",
    "consistency",
    "ensv",
    "mano",
    "mutual_information",
    "nuclear_norm",
    "snd",
    "transport",
]
