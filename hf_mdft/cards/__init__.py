"""Model cards: typed facts in, text out."""

from .facts import Decision, Difference, Measured, MetaFacts, PoolFacts, SpecialistFacts, Trust
from .inputs import TaskInputs, inputs_text
from .meta import meta_card
from .metadata import eval_results_file
from .pool import pool_card
from .roster import ROSTER, Compared, compared, in_order, refuse_reserved
from .specialist import specialist_card


__all__ = [
    "ROSTER",
    "Compared",
    "Decision",
    "Difference",
    "Measured",
    "MetaFacts",
    "PoolFacts",
    "SpecialistFacts",
    "TaskInputs",
    "Trust",
    "compared",
    "eval_results_file",
    "in_order",
    "inputs_text",
    "meta_card",
    "pool_card",
    "refuse_reserved",
    "specialist_card",
]
