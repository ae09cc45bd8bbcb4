"""Timing a trainer's steps and their floor in turns, so that a noisy machine treats both alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

from .memory import PeakMemory


WARM_UP = 6
"""Steps before any timing: they show what memory the trainer needs by itself, and until the process holds that memory,
steps are up to twice as slow."""

TURN = 4
"""Steps in a turn; the first finds caches and allocator as the other left them and is not counted."""


class Interleaved(TrainerCallback):
    """After every few steps of a trainer, runs as many of the floor.

    A trainer's step is everything between the ends of two steps: data, forward, backward, optimiser, logging.

    Args:
        make_floor: Makes the floor, a function that does one step of it.
        memory: Stopped before the floor is made.
    """

    def __init__(self, make_floor: Callable[[], Callable[[], None]], memory: PeakMemory) -> None:
        self.make_floor, self.memory = make_floor, memory
        self.steps: list[float] = []
        self.floors: list[float] = []
        self._floor: Callable[[], None] | None = None
        self._mark = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = _now()
        place = (state.global_step - WARM_UP) % TURN
        if state.global_step > WARM_UP and place != 1:
            self.steps.append(now - self._mark)
        if state.global_step > WARM_UP and place == 0:
            self._run_floor()
        self._mark = _now()

    def _run_floor(self) -> None:
        if self._floor is None:
            self.memory.stop()
            self._floor = self.make_floor()
            self._floor()
        for place in range(TURN):
            before = _now()
            self._floor()
            if place:
                self.floors.append(_now() - before)


def training_steps(turns: int) -> int:
    """How many steps of a trainer make so many turns."""
    return WARM_UP + TURN * turns


def _now() -> float:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()
