"""Scores in words that need no paper."""

from __future__ import annotations


POINTS = {
    "consistency": "predictions that survive small translations",
    "agreement": "agreement with held-out views and other models",
    "aetta": "accuracy estimated from unstable predictions and lost classes",
    "transport": "accuracy estimated from how predictions fit the class prior",
    "ensv": "agreement with the average of all candidates",
    "mutual_information": "certainty and balance of predictions (mutual information)",
    "nuclear_norm": "certainty and balance of predictions (nuclear norm)",
}
"""Scores in percent of something."""

OTHERS = {
    "class_drift": "nearness of class frequencies to what the prior explains",
    "mano": "size of the normalized logits",
    "snd": "density of groups of predictions",
}


def said(score: str, value: float) -> str:
    """A score's value as part of a sentence; a score that has no words is called by its name."""
    if score in POINTS:
        return f"{POINTS[score]} {100 * value:+.1f} points"
    return f"{OTHERS.get(score, score)} {value:+.3g}"
