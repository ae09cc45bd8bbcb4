"""Merges without training, to compare with."""

from __future__ import annotations

import torch
from torch import nn

from ..pool import ModelPool


BASELINES: dict[str, float | None] = {"weight_average": None, "task_arithmetic": 0.3}
"""Coefficient of every expert, `None` for 1/K. 0.3 is the literature's (Ilharco et al. 2023)."""


def combined_tower(pool: ModelPool, coefficient: float | None) -> nn.Module:
    """`theta_0 + coefficient * sum_k tau_k` as a plain tower; `None` gives the weight average."""
    tower, vectors = pool.tower(), pool.vectors()
    factor = 1 / len(vectors.experts) if coefficient is None else coefficient
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            parameter += factor * vectors.stack(name).sum(dim=0, dtype=torch.float32)
    return tower
