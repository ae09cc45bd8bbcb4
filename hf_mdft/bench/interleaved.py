"""Timing a trainer's steps and their lower bound in turns, so that a noisy machine treats both alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from ..core.device import now
from .memory import PeakMemory


WARM_UP = 6
"""Steps before any timing: they show what memory the trainer needs by itself, and until the process holds that memory,
steps are up to twice as slow."""

TURN = 4
"""Steps in a turn; the first finds caches and allocator as the other left them and is not counted."""


class Interleaved(TrainerCallback):
    """After every few steps of a trainer, runs as many of the lower bound.

    A trainer's step is everything between the ends of two steps: data, forward, backward, optimizer, logging.

    Args:
        make_lower_bound: Function that makes the lower bound, a function that does one step of it.
        memory: Measurement that is stopped before the lower bound is made.
    """

    def __init__(self, make_lower_bound: Callable[[], Callable[[], None]], memory: PeakMemory) -> None:
        self.make_lower_bound, self.memory = make_lower_bound, memory
        self.steps: list[float] = []
        self.lower_bounds: list[float] = []
        self._lower_bound: Callable[[], None] | None = None
        self._mark = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        over = now()
        place = (state.global_step - WARM_UP) % TURN
        if state.global_step > WARM_UP and place != 1:
            self.steps.append(over - self._mark)
        if state.global_step > WARM_UP and place == 0:
            self._run_lower_bound()
        self._mark = now()

    def _run_lower_bound(self) -> None:
        if self._lower_bound is None:
            self.memory.stop()
            self._lower_bound = self.make_lower_bound()
            self._lower_bound()
        for place in range(TURN):
            before = now()
            self._lower_bound()
            if place:
                self.lower_bounds.append(now() - before)


def training_steps(turns: int) -> int:
    """How many steps of a trainer make so many turns."""
    return WARM_UP + TURN * turns
