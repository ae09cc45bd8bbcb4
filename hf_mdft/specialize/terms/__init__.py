"""Terms of the student's loss: a new one is one file, one registration, and its weight in
`SpecializeArguments.terms`."""

from .alignment import Alignment
from .base import STUDENT_TERMS, StudentBatch, StudentTerm, WeightTerm
from .distillation import Distillation
from .infomax import Infomax
from .l2_sp import L2SP
from .views import BatchViews


__all__ = [
    "L2SP",
    "STUDENT_TERMS",
    "Alignment",
    "BatchViews",
    "Distillation",
    "Infomax",
    "StudentBatch",
    "StudentTerm",
    "WeightTerm",
]
