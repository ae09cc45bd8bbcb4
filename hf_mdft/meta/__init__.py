"""Phase 1: learning the coefficients on unlabelled images of all tasks at once."""

from .arguments import MdftTrainingArguments
from .checks import check_division
from .mixed import MixedTasks
from .resume import resume_key
from .terms import META_TERMS
from .trainer import MdftTrainer


__all__ = ["META_TERMS", "MdftTrainer", "MdftTrainingArguments", "MixedTasks", "check_division", "resume_key"]
