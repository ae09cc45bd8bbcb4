"""A base model and its experts, pinned, checked and turned into task vectors."""

from .manifest import ModelPool
from .source import ModelSource
from .vectors import TaskVectors


__all__ = ["ModelPool", "ModelSource", "TaskVectors"]
