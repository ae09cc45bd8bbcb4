"""Terms of the student's loss: a new one is one file, one registration, and its weight in
`SpecializeArguments.terms`."""

from .aad import AttractingAndDispersing
from .alignment import Alignment
from .base import STUDENT_TERMS, StudentBatch, StudentTerm, WeightTerm
from .distillation import Distillation
from .entropy import Entropy, FilteredEntropy
from .infomax import Infomax
from .l2_sp import L2SP
from .must import Must
from .mutual_information import MutualInformation
from .views import BatchViews


__all__ = [
    "L2SP",
    "STUDENT_TERMS",
    "Alignment",
    "AttractingAndDispersing",
    "BatchViews",
    "Distillation",
    "Entropy",
    "FilteredEntropy",
    "Infomax",
    "Must",
    "MutualInformation",
    "StudentBatch",
    "StudentTerm",
    "WeightTerm",
]
