"""Ending a training where the loss on held-out images no longer falls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from ..core.seeds import mixed_seed


HELD_OUT_LOSS = "held_out_loss"
"""Name in log lines, which checkpoints hold."""

EVERY, PATIENCE, LEAST_GAIN = 50, 2, 0.01
"""Steps between two looks; looks in a row without a gain that end the training; least gain that counts, of the lowest
loss so far."""


PART = 8
"""One of so many images is held out, at most."""


def held_out(count: int, most: int, *seeds: int) -> torch.Tensor:
    """Rows of the images that are held out, of `count`: no more than `most`, drawn by seeds."""
    generator = torch.Generator().manual_seed(mixed_seed(*seeds))
    return torch.randperm(count, generator=generator)[: min(most, count // PART)].sort().values


def others(count: int, rows: torch.Tensor) -> torch.Tensor:
    """The other rows, of `count`."""
    taken = torch.ones(count, dtype=torch.bool).index_fill(0, rows, False)
    return taken.nonzero().squeeze(-1)


def ends_where_flat(args: TrainingArguments) -> bool:
    """Whether a training may end early: its steps are counted, and there are enough of them for a look."""
    return args.fewer_steps and args.max_steps > EVERY


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
