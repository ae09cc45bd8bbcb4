"""The merging adapter as a PEFT method; importing this registers `MDFT` with PEFT."""

from .config import STRONG_TRANSFORM, MdftConfig, config_for
from .held import combined_once
from .layer import MdftLayer
from .model import MdftModel
from .registration import register
from .sharded import Shard


register()

__all__ = ["STRONG_TRANSFORM", "MdftConfig", "MdftLayer", "MdftModel", "Shard", "combined_once", "config_for"]
