"""Merges without training, to compare with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..embedding.statistics import estimate_statistics
from ..pool import ModelPool
from ..tasks import Images


BASELINES: dict[str, float | None] = {"weight_average": None, "task_arithmetic": 0.3}
"""Coefficient of every expert, `None` for 1/K. 0.3 is the literature's (Ilharco et al. 2023)."""


def combined_tower(pool: ModelPool, coefficient: float | None, images: Sequence[Images] = ()) -> nn.Module:
    """`theta_0 + coefficient * sum_k tau_k` as a plain tower; `None` gives the weight average.

    Args:
        pool: Base and experts.
        coefficient: Merging coefficient, the same for every expert; `None` for 1/K.
        images: Unlabelled images of each task, from which running statistics are estimated where the tower has any.
    """
    tower, vectors = pool.tower(), pool.vectors()
    factor = 1 / len(vectors.experts) if coefficient is None else coefficient
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            parameter += factor * vectors.stack(name).sum(dim=0, dtype=torch.float32)
    return estimate_statistics(tower, images)
