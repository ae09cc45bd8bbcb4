"""Class frequencies of the targets, corrected towards the estimated class prior."""

from __future__ import annotations

import torch

from ...objectives import estimate_prior
from .base import TEACHER_PARTS, TeacherState


@TEACHER_PARTS.register("class_prior")
def class_prior(state: TeacherState) -> torch.Tensor:
    """`p(c) (r(c) / mean p(c)) ** prior_strength`, normalised, with r the class prior estimated from p."""
    given = state.probabilities
    ratio = estimate_prior(given) / given.mean(dim=0).clamp(min=1e-8)
    corrected = given * ratio**state.args.prior_strength
    return corrected / corrected.sum(dim=-1, keepdim=True)
