"""Results to the Hub: pushes and model cards."""

from .push import push_folder


__all__ = ["push_folder"]
