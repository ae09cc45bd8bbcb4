"""Kinds of vision models that can be pooled. One file each."""

from .base import ARCHITECTURES, Architecture, VisionTransformer, architecture_of, read_config
from .clip import ClipVision
from .identity import functional_config
from .vit import Vit


__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "ClipVision",
    "VisionTransformer",
    "Vit",
    "architecture_of",
    "functional_config",
    "read_config",
]
