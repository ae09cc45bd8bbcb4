"""Losses and filters on tensors: no model, no data, no labels."""

from .anchor import agreement_rule, anchor_divergence, embedding_distance
from .entropy import entropy, max_entropy
from .filters import FILTERS, SampleFilter
from .prior import estimate_prior, prior_divergence


__all__ = [
    "FILTERS",
    "SampleFilter",
    "agreement_rule",
    "anchor_divergence",
    "embedding_distance",
    "entropy",
    "estimate_prior",
    "max_entropy",
    "prior_divergence",
]
