"""The Hub: asking it, pushing to it, and what cards say."""

from .push import push_folder


__all__ = ["push_folder"]
