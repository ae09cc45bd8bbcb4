"""Several micro-batches over one combine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from .grouped import Part, can_combine_together, combine_together
from .layer import MdftLayer
from .sharded import Shard, combine_sharded


@contextmanager
def combined_once(model: nn.Module, shard: Shard | None = None) -> Iterator[None]:
    """Within, all layers use the parameters that they combine on entry; on leaving without an error, the gradients
    that backward passes gave those parameters are added to the coefficients'.

    The chain rule cut in two: whatever the number of micro-batches, the task vectors are read once forward and once
    backward, and only one micro-batch's activations are in memory. On CUDA devices one kernel combines the parameters
    of all layers. Adapters must not be switched within.

    Args:
        model: Model with MDFT layers.
        shard: This process's part of the task vectors, where they are spread over processes, all of which must come
            here together (`combine_sharded`).

    Raises:
        ValueError: With a shard, several adapters are active, or the base's own weights are trained.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, MdftLayer) and layer.combines]
    combined: list[torch.Tensor] = []
    leaves: list[torch.Tensor] = []
    try:
        for layer, parameters in zip(layers, _combine(layers, shard), strict=True):
            held = dict(parameters)
            for name, tensor in parameters.items():
                if tensor.requires_grad:
                    held[name] = tensor.detach().requires_grad_()
                    combined.append(tensor)
                    leaves.append(held[name])
            layer.hold(held)
        yield
    finally:
        for layer in layers:
            layer.let_go()
    reached = [(tensor, leaf.grad) for tensor, leaf in zip(combined, leaves, strict=True) if leaf.grad is not None]
    if reached:
        torch.autograd.backward(*zip(*reached, strict=True))


def _combine(layers: Sequence[MdftLayer], shard: Shard | None) -> Iterator[dict[str, torch.Tensor]]:
    """What `MdftLayer.combined` gives with the active adapters, layer by layer: all at once where that is possible."""
    adapters = [[name for name in layer.active_adapters if name in layer.mdft_vectors] for layer in layers]
    parts: list[Part] = []
    if all(len(names) == 1 for names in adapters):
        first: dict[nn.Parameter, int] = {}  # a coefficient may cover several layers
        count = 0
        for layer, (adapter,) in zip(layers, adapters, strict=True):
            own = dict(layer.base_layer.named_parameters())
            for name, vectors, rows, row in layer.sources(adapter, own, shard):
                if rows not in first:
                    first[rows], count = count, count + rows.shape[0]
                parts.append(Part(own[name], vectors, first[rows] + row))
    if shard is not None and layers:
        if not parts:
            raise ValueError("one adapter must be active where task vectors are sharded")
        combined = iter(combine_sharded(parts, torch.cat(list(first)), shard))
    elif can_combine_together(parts):
        combined = iter(combine_together(parts, torch.cat(list(first))))
    else:
        yield from (layer.combined(layer.active_adapters) for layer in layers)
        return
    for layer, (adapter,) in zip(layers, adapters, strict=True):
        found = {name: next(combined) for name in layer.mdft_vectors[adapter].names}
        yield found | layer.statistics(layer.active_adapters)
