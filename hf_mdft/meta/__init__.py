"""Phase 1: learning the coefficients on unlabelled images of all tasks at once."""

from .arguments import MdftTrainingArguments
from .key import meta_key
from .mixed import MixedTasks
from .trainer import MdftTrainer


__all__ = ["MdftTrainer", "MdftTrainingArguments", "MixedTasks", "meta_key"]
