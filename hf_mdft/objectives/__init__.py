"""Losses, filters and label-free scores on tensors: no model, no data, no labels."""

from .distillation import agreement_rule, embedding_distance, expert_divergence, hard_distillation
from .entropy import certainty, entropy, image_information, max_entropy, mean_log_probs
from .filters import FILTERS, SampleFilter
from .prior import concentration, estimate_prior, log_mean, prior_divergence


__all__ = [
    "FILTERS",
    "SampleFilter",
    "agreement_rule",
    "certainty",
    "concentration",
    "embedding_distance",
    "entropy",
    "estimate_prior",
    "expert_divergence",
    "hard_distillation",
    "image_information",
    "log_mean",
    "max_entropy",
    "mean_log_probs",
    "prior_divergence",
]
