"""Trim, then keep only the entries that agree with the elected sign."""

from dataclasses import dataclass

import torch
from peft.utils.merge_utils import calculate_majority_sign_mask

from .base import TRANSFORMS
from .trim import Trim


@TRANSFORMS.register("ties")
@dataclass
class Ties(Trim):
    """Trim and elect signs (TIES, Yadav et al. 2023, https://huggingface.co/papers/2306.01708).

    Entries that do not have the sign of the summed trimmed vectors become zero. Every entry is then scaled by
    K / (number of agreeing experts), so that coefficients of 1/K give the paper's disjoint mean and experts keep a
    coefficient each, as in AdaMerging++.

    Args:
        density: Share of entries that the trim keeps, in (0, 1]. The default is the paper's.
        scope: `"tensor"` or `"model"`, see [`Trim`]; the paper's is `"model"`.
        disjoint_mean: Whether to scale as above; else agreeing entries stay as they are, and coefficients weigh their
            sum.
    """

    version = 2
    disjoint_mean: bool = True

    def __call__(self, name: str, vectors: torch.Tensor) -> torch.Tensor:
        trimmed = super().__call__(name, vectors)
        agreeing = trimmed * calculate_majority_sign_mask(trimmed, method="total")
        if not self.disjoint_mean:
            return agreeing
        count = (agreeing != 0).sum(dim=0).clamp(min=1)
        return agreeing * (len(vectors) / count)
