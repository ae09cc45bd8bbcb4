"""The merging adapter as a PEFT method; importing this registers `MDFT` with PEFT."""

from .config import MdftConfig
from .layer import MdftLayer
from .model import MdftModel
from .registration import register


register()

__all__ = ["MdftConfig", "MdftLayer", "MdftModel"]
