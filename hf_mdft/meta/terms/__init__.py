"""Terms of phase 1's loss: a new one is one file, one registration, and its weight in
`MdftTrainingArguments.terms`."""

from .base import META_TERMS, MetaTerm, TaskBatch
from .distillation import Distillation
from .diversity import Diversity
from .entropy import FilteredEntropy
from .prior import PriorMatch


__all__ = ["META_TERMS", "Distillation", "Diversity", "FilteredEntropy", "MetaTerm", "PriorMatch", "TaskBatch"]
