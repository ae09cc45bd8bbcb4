"""From an image embedding to a task's classes. One file for each kind of head."""

from .base import HEADS, Head, check_finite, load_head
from .build import build_expert_heads, build_head, mean_head
from .linear import LinearHead
from .templates import TEMPLATES, resolve_templates
from .zero_shot import SigmoidHead, ZeroShotHead


__all__ = [
    "HEADS",
    "TEMPLATES",
    "Head",
    "LinearHead",
    "SigmoidHead",
    "ZeroShotHead",
    "build_expert_heads",
    "build_head",
    "check_finite",
    "load_head",
    "mean_head",
    "resolve_templates",
]
