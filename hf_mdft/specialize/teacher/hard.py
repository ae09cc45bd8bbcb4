"""Pseudo-labels."""

from __future__ import annotations

from dataclasses import replace

from torch.nn import functional as F

from .base import TEACHER_PARTS, TeacherState


@TEACHER_PARTS.register("hard")
def hard(state: TeacherState) -> TeacherState:
    """The most probable class with certainty; an image counts where it had a probability of at least
    `confidence_threshold`."""
    confidence, classes = state.probabilities.max(dim=-1)
    labels = F.one_hot(classes, state.probabilities.shape[-1]).to(confidence)
    return replace(state, probabilities=labels, weights=(confidence >= state.args.confidence_threshold).to(confidence))
