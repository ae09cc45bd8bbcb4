"""Phase 1: learning the coefficients on unlabelled images of all tasks at once."""

from .arguments import MdftTrainingArguments
from .base import PhaseTrainer, own_arguments
from .expert_outputs import expert_features
from .mixed import MixedTasks
from .progress import show_progress
from .resume import arguments_key, resumable
from .saving import (
    ADAPTER_FILES,
    TASKS_FILE,
    coefficient_table,
    meta_facts,
    options_of,
    save_meta,
    warn_if_local,
    write_eval_results,
)
from .trainer import MdftTrainer


__all__ = [
    "ADAPTER_FILES",
    "TASKS_FILE",
    "MdftTrainer",
    "MdftTrainingArguments",
    "MixedTasks",
    "PhaseTrainer",
    "arguments_key",
    "coefficient_table",
    "expert_features",
    "meta_facts",
    "options_of",
    "own_arguments",
    "resumable",
    "save_meta",
    "show_progress",
    "warn_if_local",
    "write_eval_results",
]
