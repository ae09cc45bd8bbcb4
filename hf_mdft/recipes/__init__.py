"""A run in one YAML file: read, checked, done."""

from .recipe import Recipe


__all__ = ["Recipe"]
