"""FusionBench's layer-wise AdaMerging on the same inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ..core.errors import InputError
from ..objectives import entropy
from ..pool import ModelPool
from .random_pool import random_head


class _Features(nn.Module):
    """The tower as a model that gives embeddings."""

    def __init__(self, tower: nn.Module, pool: ModelPool) -> None:
        super().__init__()
        self.tower, self.features = tower, pool.architecture.features

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.features(self.tower(pixel_values=pixel_values))


def load_fusion_bench() -> tuple[type[nn.Module], Callable[..., torch.Tensor]]:
    """FusionBench's wrapper, and the function that makes its coefficients.

    Raises:
        InputError: `fusion_bench` is not installed.
    """
    try:
        from fusion_bench.models.wrappers.layer_wise_fusion import LayerWiseMergedModel, get_layer_wise_weights
    except ImportError as error:
        raise InputError(f"--baseline needs FusionBench: pip install fusion-bench ({error})") from error
    return LayerWiseMergedModel, get_layer_wise_weights


def fusion_bench_step(pool: ModelPool, tasks: list[str], batch: torch.Tensor, bf16: bool) -> Callable[[], None]:
    """One step of AdaMerging as FusionBench does it (0.2.33): merge, then forward and backward for task after task
    with the merge's graph retained, then Adam."""
    merged_model, layer_wise_weights = load_fusion_bench()
    device = batch.device
    base = _Features(pool.tower(), pool).to(device)
    experts = [_Features(pool.tower(task), pool).to(device) for task in pool.experts]
    weights = layer_wise_weights(len(experts), len(list(base.parameters())), 0.3)
    model = merged_model(weights.to(device), base, experts, strict=False)
    heads = [random_head(pool, number).to(device) for number, _ in enumerate(tasks)]
    optimizer = torch.optim.Adam([model.merge_weight], lr=1e-3)
    model.merge_weights()

    def step() -> None:
        for head, pixels in zip(heads, batch.chunk(len(heads)), strict=True):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                features = model(pixels)
            entropy(head(features.float())).mean().backward(retain_graph=True)
        optimizer.step()
        optimizer.zero_grad()
        model.merge_weights()

    return step
