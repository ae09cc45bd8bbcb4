"""Phase 1: learning the coefficients on unlabelled images of all tasks at once."""

from .arguments import MdftTrainingArguments
from .base import PhaseTrainer, own_arguments
from .expert_outputs import expert_features, mean_log_probs
from .mixed import MixedTasks
from .progress import show_progress
from .resume import arguments_key, resumable
from .saving import (
    ADAPTER_FILES,
    HEAD_FOLDERS,
    RESULT_FILE,
    TRAINED_HEAD,
    coefficient_table,
    meta_facts,
    options_of,
    read_adapter,
    refuse_local,
    save_meta,
    write_eval_results,
)
from .trainer import MdftTrainer


__all__ = [
    "ADAPTER_FILES",
    "HEAD_FOLDERS",
    "RESULT_FILE",
    "TRAINED_HEAD",
    "MdftTrainer",
    "MdftTrainingArguments",
    "MixedTasks",
    "PhaseTrainer",
    "arguments_key",
    "coefficient_table",
    "expert_features",
    "mean_log_probs",
    "meta_facts",
    "options_of",
    "own_arguments",
    "read_adapter",
    "refuse_local",
    "resumable",
    "save_meta",
    "show_progress",
    "write_eval_results",
]
