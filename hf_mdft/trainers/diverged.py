"""Training that has diverged ends, before a checkpoint keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import TrainerCallback

from ..core.errors import InputError


EVERY = 50
"""Steps between two looks: one takes as long as a small part of a step, and waits for an accelerator."""


class Diverged(InputError):
    """Weights, or what a model computes with them, are no finite numbers any more."""

    def __init__(self) -> None:
        super().__init__("training diverged, to weights or outputs that are no finite numbers; lower learning_rate")


def refuse_diverged(tensors: Iterable[torch.Tensor]) -> None:
    """Raises:
    Diverged: One holds NaN or infinity.
    """
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise Diverged


class EndWhereDiverged(TrainerCallback):
    """Looks at what is trained now and then, and before each checkpoint. All processes have the same weights, so all
    of them end."""

    def on_step_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        if control.should_save or state.global_step % EVERY == 0:
            refuse_diverged(p for group in optimizer.param_groups for p in group["params"])
