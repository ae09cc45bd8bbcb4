"""The label-free decision between specialist and expert: scores make the evidence, a rule decides."""

from ...cards import Decision
from .decide import decide
from .familiarity import LEAST_DIFFERENT, LIMITS, Familiarity, familiarity
from .interpolations import SHARES, Comparison, Interpolations
from .rules import RULE, Above, Furthest, Rule, Thresholds, Verdict, without_information
from .strangers import information_by_others


__all__ = [
    "LEAST_DIFFERENT",
    "LIMITS",
    "RULE",
    "SHARES",
    "Above",
    "Comparison",
    "Decision",
    "Familiarity",
    "Furthest",
    "Interpolations",
    "Rule",
    "Thresholds",
    "Verdict",
    "decide",
    "familiarity",
    "information_by_others",
    "without_information",
]
