"""What happens between the student's steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback


if TYPE_CHECKING:
    from .student import StudentTrainer


class RefreshTeacher(TrainerCallback):
    """Makes the teacher anew before some steps. A checkpoint is older than the refresh at its step, so a run that goes
    on from it refreshes then."""

    def __init__(self, trainer: StudentTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        epoch = math.ceil(len(kwargs["train_dataloader"]) / args.gradient_accumulation_steps)
        if due(state.global_step, args.refreshes, state.max_steps, epoch):
            self.trainer.set_teacher(self.trainer.refresh(self.trainer.averaged()), args.device)


def due(step: int, refreshes: int, max_steps: int, epoch: int) -> bool:
    """Whether the teacher is made anew before a step.

    Args:
        step: Steps that were done.
        refreshes: How often in all, evenly spaced; -1: before every epoch but the first.
        max_steps: All steps.
        epoch: Steps of an epoch.
    """
    if refreshes < 0:
        return step > 0 and step % epoch == 0
    return step in {number * max_steps // (refreshes + 1) for number in range(1, refreshes + 1)} - {0}


class UpdateAverage(TrainerCallback):
    """Keeps the moving average of the weights."""

    def __init__(self, trainer: StudentTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.average.update_parameters(self.trainer.accelerator.unwrap_model(self.trainer.model))


class TellTerms(TrainerCallback):
    """Tells the terms of the loss that a step was made."""

    def __init__(self, trainer: StudentTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        student = self.trainer.accelerator.unwrap_model(self.trainer.model)
        for term in self.trainer.terms.values():
            term.after_step(student)
