"""Losses and filters on tensors: no model, no data, no labels."""

from .anchor import agreement_rule, anchor_divergence, embedding_distance, hard_anchor
from .entropy import entropy, max_entropy
from .filters import FILTERS, SampleFilter
from .prior import PRIORS, concentration, estimate_prior, prior_divergence


__all__ = [
    "FILTERS",
    "PRIORS",
    "SampleFilter",
    "agreement_rule",
    "anchor_divergence",
    "concentration",
    "embedding_distance",
    "entropy",
    "estimate_prior",
    "hard_anchor",
    "max_entropy",
    "prior_divergence",
]
