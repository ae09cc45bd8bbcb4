"""Sharpness-aware minimisation (SAM, Foret et al. 2021, https://huggingface.co/papers/2010.01412)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn


T = TypeVar("T")


@torch.no_grad()
def gradient_uphill(
    parameters: Sequence[nn.Parameter], gradient: Callable[[], T], radius: float, memories: Sequence[nn.Module] = ()
) -> T:
    """Leave in `grad` the gradient from one step of length `radius` up the slope, with the parameters where they were.

    Args:
        parameters: Parameters that are trained.
        gradient: Computes `grad` of all parameters where they are now.
        radius: Length of the step, in the parameters' Euclidean norm.
        memories: Modules whose buffers `gradient` changes; they see the batch once, not twice.

    Returns:
        What `gradient` gave before the step.
    """
    before = [copy.deepcopy(module.state_dict()) for module in memories]
    with torch.enable_grad():
        found = gradient()
    slope = {p: p.grad for p in parameters if p.grad is not None}
    norm = torch.stack([grad.norm() for grad in slope.values()]).norm().clamp(min=1e-12)
    if not norm.isfinite():
        return found  # fp16 overflowed: the scaler will skip the step
    here = {p: p.clone() for p in slope}
    for module, state in zip(memories, before, strict=True):
        module.load_state_dict(state)
    try:
        for p, grad in slope.items():
            p.add_(radius / norm * grad)
        with torch.enable_grad():
            gradient()
    finally:
        for p, start in here.items():
            p.copy_(start)
    return found
