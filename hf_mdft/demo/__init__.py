"""The embedded pool: real images that ship inside scikit-learn and scikit-image, and models made from them here."""

from .pool import demo_recipe


__all__ = ["demo_recipe"]
