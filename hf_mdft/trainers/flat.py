"""Ending a training where the loss on held-out images no longer falls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import SaveStrategy


HELD_OUT_LOSS = "held_out_loss"
"""Name in log lines, which checkpoints hold."""

EVERY, PATIENCE, LEAST_GAIN = 50, 2, 0.01
"""Steps between two looks; looks in a row without a gain that end the training; least gain that counts, of the lowest
loss so far."""


def flat(state: TrainerState) -> bool:
    """Whether the held-out loss has stopped falling, by the log lines of a training so far."""
    losses = [line[HELD_OUT_LOSS] for line in state.log_history if HELD_OUT_LOSS in line]
    if len(losses) <= PATIENCE:
        return False
    return min(losses[-PATIENCE:]) > (1 - LEAST_GAIN) * min(losses[:-PATIENCE])


class EndWhereFlat(TrainerCallback):
    """Looks at the held-out loss now and then, logs it, and ends the training where it is flat. Nothing else depends
    on it, so that a run that is resumed goes on, and ends, as if it had not been interrupted.

    Args:
        loss: Gives the loss on held-out images.
        log: Logs a line.
    """

    def __init__(self, loss: Callable[[], float], log: Callable[[dict[str, float]], None]) -> None:
        self.loss, self.log = loss, log

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % EVERY or state.global_step >= state.max_steps:
            return
        # The first process decides for all: another one's loss could differ in the last bit.
        (loss,) = broadcast_object_list([self.loss()])
        self.log({HELD_OUT_LOSS: loss})
        if flat(state):
            control.should_training_stop = True
            control.should_save = args.save_strategy != SaveStrategy.NO
