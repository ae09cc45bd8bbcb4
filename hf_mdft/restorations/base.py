"""What a restoration is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..core.registry import Registry


Restoration = Callable[[torch.Tensor], torch.Tensor]
"""Takes pixels `(n, 3, height, width)` in [0, 1] and gives the same shape and range; each image depends on itself
alone, so that batches make no difference."""

RESTORATIONS: Registry[Restoration] = Registry("restoration")


def restore(pixels: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
    """Pixels `(n, 3, height, width)` in [0, 1] after some restorations, one after the other.

    Raises:
        InputError: There is no such restoration.
    """
    for name in names:
        pixels = RESTORATIONS.get(name)(pixels).clamp(0, 1)
    return pixels
