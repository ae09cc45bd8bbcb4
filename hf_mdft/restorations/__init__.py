"""Restorations: simple changes of pictures that undo what another camera, printer or season did to them.

A new one is one file and one registration.
"""

from . import geometry, sharpness, tone
from .base import RESTORATIONS, Restoration, restore
from .images import restored


__all__ = ["RESTORATIONS", "Restoration", "geometry", "restore", "restored", "sharpness", "tone"]
