"""The label-free decision between specialist and expert: scores make the evidence, a rule decides."""

from ...cards import Decision
from .decide import decide
from .interpolations import SHARES, Comparison, Interpolations
from .rules import RULE, Above, Furthest, Rule, Thresholds, Verdict, without_information


__all__ = [
    "RULE",
    "SHARES",
    "Above",
    "Comparison",
    "Decision",
    "Furthest",
    "Interpolations",
    "Rule",
    "Thresholds",
    "Verdict",
    "decide",
    "without_information",
]
