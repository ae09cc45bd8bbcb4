"""Kinds of vision models that can be pooled. One file each."""

from .base import ARCHITECTURES, Architecture, architecture_of
from .clip import ClipVision
from .vit import Vit


__all__ = ["ARCHITECTURES", "Architecture", "ClipVision", "Vit", "architecture_of"]
