"""What the trainers of both phases share on top of `transformers.Trainer`."""

from .base import PhaseTrainer, own_arguments
from .options import options_of
from .progress import show_progress
from .resume import arguments_key, resumable
from .terms import check_terms, term_weights, weight_of


__all__ = [
    "PhaseTrainer",
    "arguments_key",
    "check_terms",
    "options_of",
    "own_arguments",
    "resumable",
    "show_progress",
    "term_weights",
    "weight_of",
]
