"""Phase 1: learning the coefficients on unlabelled images of all tasks at once."""

from .arguments import MdftTrainingArguments
from .base import PhaseTrainer, own_arguments
from .expert_outputs import expert_features
from .mixed import MixedTasks
from .progress import show_progress
from .resume import arguments_key, resumable
from .trainer import MdftTrainer


__all__ = [
    "MdftTrainer",
    "MdftTrainingArguments",
    "MixedTasks",
    "PhaseTrainer",
    "arguments_key",
    "expert_features",
    "own_arguments",
    "resumable",
    "show_progress",
]
