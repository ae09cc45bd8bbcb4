"""What a step costs at least: the passes alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from ..core.attention import quick_attention
from ..heads import Head
from ..pool import ModelPool
from .random_pool import config_of
from .setting import Setting


def noise(setting: Setting, count: int, device: torch.device) -> torch.Tensor:
    """`count` images `(count, 3, side, side)` as the tower reads them."""
    side = config_of(setting.size).image_size
    return torch.randn(count, 3, side, side).to(device)


def pass_over(pool: ModelPool, batch: torch.Tensor, bf16: bool, device: torch.device) -> Callable[[], None]:
    """One forward and one backward pass, for the gradients of all weights."""
    tower = pool.tower(next(iter(pool.experts))).to(device).train()

    def step() -> None:
        tower.zero_grad()
        with quick_attention(device, bf16), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            features = pool.architecture.features(tower(pixel_values=batch)).float()
        features.square().mean().backward()

    return step


def fine_tuning(
    pool: ModelPool, batch: torch.Tensor, bf16: bool, device: torch.device, head: Head
) -> Callable[[], None]:
    """One step of plain fine-tuning: cross-entropy, clipped gradient, AdamW."""
    tower = pool.tower(next(iter(pool.experts))).to(device).train()
    head = head.to(device)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=1e-5, weight_decay=0.0, fused=True)
    labels = torch.arange(len(batch), device=device) % head.num_classes

    def step() -> None:
        with quick_attention(device, bf16), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = head(pool.architecture.features(tower(pixel_values=batch)).float())
            loss = F.cross_entropy(logits, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step
