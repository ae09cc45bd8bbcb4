"""Several micro-batches over one combine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .layer import MdftLayer


@contextmanager
def combined_once(model: nn.Module) -> Iterator[None]:
    """Within, all layers use the parameters that they combine on entry; on leaving without an error, the gradients
    that backward passes gave those parameters are added to the coefficients'.

    The chain rule cut in two: whatever the number of micro-batches, the task vectors are read once forward and once
    backward, and only one micro-batch's activations are in memory.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, MdftLayer) and layer.combines]
    combined: list[torch.Tensor] = []
    leaves: list[torch.Tensor] = []
    try:
        for layer in layers:
            layer.held = layer.combined(layer.active_adapters)
            for name, tensor in layer.held.items():
                if tensor.requires_grad:
                    layer.held[name] = tensor.detach().requires_grad_()
                    combined.append(tensor)
                    leaves.append(layer.held[name])
        yield
    finally:
        for layer in layers:
            layer.held = None
    reached = [(tensor, leaf.grad) for tensor, leaf in zip(combined, leaves, strict=True) if leaf.grad is not None]
    if reached:
        torch.autograd.backward(*zip(*reached, strict=True))
