"""What the trainers of both phases share on top of `transformers.Trainer`."""

from .base import PhaseTrainer, own_arguments
from .options import options_of
from .progress import show_progress
from .resume import arguments_key, resumable


__all__ = ["PhaseTrainer", "arguments_key", "options_of", "own_arguments", "resumable", "show_progress"]
