"""Kinds of vision models that can be pooled. One file each."""

from .base import ARCHITECTURES, Architecture, VisionTransformer
from .classifier import Classifier
from .clip import ClipVision
from .finding import architecture_of, pool_architecture, read_config
from .identity import functional_config
from .metaclip import MetaClip2Vision
from .siglip import SiglipVision
from .vit import Vit


__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Classifier",
    "ClipVision",
    "MetaClip2Vision",
    "SiglipVision",
    "VisionTransformer",
    "Vit",
    "architecture_of",
    "functional_config",
    "pool_architecture",
    "read_config",
]
