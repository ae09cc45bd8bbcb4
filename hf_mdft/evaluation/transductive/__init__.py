"""Training-free baselines on the expert's embeddings of all evaluation images; one file and one registration each."""

from .base import TRANSDUCTIVE, TransductiveMethod
from .stata import stata
from .transclip import transclip


__all__ = ["TRANSDUCTIVE", "TransductiveMethod", "stata", "transclip"]
