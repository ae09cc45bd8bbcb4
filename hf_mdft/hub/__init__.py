"""The network: the one room that calls the Hub."""

from .push import push_folder


__all__ = ["push_folder"]
