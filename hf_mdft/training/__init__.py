"""Phase 1: learning the coefficients on unlabelled images of all tasks at once."""

from .arguments import MdftTrainingArguments
from .expert_outputs import expert_features
from .extra_state import ExtraStateTrainer, own_arguments
from .mixed import MixedTasks
from .progress import show_progress
from .resume import arguments_key, resumable
from .trainer import MdftTrainer


__all__ = [
    "ExtraStateTrainer",
    "MdftTrainer",
    "MdftTrainingArguments",
    "MixedTasks",
    "arguments_key",
    "expert_features",
    "own_arguments",
    "resumable",
    "show_progress",
]
