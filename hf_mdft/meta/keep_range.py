"""Coefficients that stay between two bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import TrainerCallback


class KeepRange(TrainerCallback):
    """Brings coefficients back between two bounds after each step, whatever optimizer made it.

    Args:
        bounds: Smallest and largest coefficient.
        coefficients: Gives the coefficients.
    """

    def __init__(self, bounds: Sequence[float], coefficients: Callable[[], list[torch.nn.Parameter]]) -> None:
        self.low, self.high = map(float, bounds)
        self.coefficients = coefficients

    @torch.no_grad()
    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        coefficients = self.coefficients()
        torch._foreach_clamp_min_(coefficients, self.low)
        torch._foreach_clamp_max_(coefficients, self.high)
