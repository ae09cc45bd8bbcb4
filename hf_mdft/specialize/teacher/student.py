"""The student as its own teacher."""

from __future__ import annotations

import torch

from .base import TEACHER_PARTS, TeacherState


@TEACHER_PARTS.register("student")
def student(state: TeacherState) -> torch.Tensor:
    """The student's predictions alone; before the first refresh, when there is none, targets stay as they are."""
    found = state.sources.get("student")
    return state.probabilities if found is None else found.log_probs.exp()
