"""Sets of images, and experts, that a run should learn nothing from: what the gate keeps of them."""

from .sets import HOSTILE
from .study import HostileRow, as_markdown, hostile_study


__all__ = ["HOSTILE", "HostileRow", "as_markdown", "hostile_study"]
