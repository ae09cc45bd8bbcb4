"""How many predictions survive small translations."""

from __future__ import annotations

from .base import SCORES, Evidence


@SCORES.register("consistency")
def consistency(evidence: Evidence) -> float:
    """Consistency under small translations. It prefers a collapsed model: one class everywhere is consistent."""
    return evidence.specialist.consistency - evidence.expert.consistency
