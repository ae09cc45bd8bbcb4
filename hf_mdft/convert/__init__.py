"""Safetensors folders of models whose weights come in another format or from another library."""

from .convert import Converted, convert


__all__ = ["Converted", "convert"]
