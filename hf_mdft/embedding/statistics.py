"""Running statistics (BatchNorm) of weights that no training has seen together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from ..adapter.layer import batch_norms
from ..tasks.images import Images


BATCH = 128
"""Images of one forward pass, of all tasks together."""

BATCHES = 8
"""Forward passes, 1,024 images in all: each gives a channel's statistics at many positions."""


@torch.no_grad()
def estimate_statistics(tower: nn.Module, images: Sequence[Images]) -> nn.Module:
    """Estimate a tower's running statistics anew, and return it; a tower without any is left as it is.

    Between models, statistics are neither the base's nor a mean of the models': weights are combined first, then the
    activations that they give are measured (REPAIR, Jordan et al. 2022, https://huggingface.co/papers/2211.08403).

    Args:
        tower: Tower, or a PEFT model around it; runs on its own device.
        images: Unlabelled images of each task that the tower is for; all tasks count alike.

    Raises:
        ValueError: The tower has statistics and there are no images.
    """
    norms = list(batch_norms(tower).values())
    if not norms:
        return tower
    if not images:
        raise ValueError("a tower with running statistics needs images to estimate them from")
    device, training = next(tower.parameters()).device, tower.training
    tower.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = None  # the mean over all batches
        norm.num_batches_tracked.zero_()
    try:
        for pixel_values in _mixed(images):
            tower(pixel_values=pixel_values.to(device))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        tower.train(training)
    return tower


def _mixed(images: Sequence[Images]) -> Iterator[torch.Tensor]:
    """Batches of one size, with as many images of each task, spread over all that it has."""
    count = min(max(1, BATCH // len(images)) * BATCHES, max(map(len, images)))
    count = max(count, -(-2 // len(images)))  # one value has no variance
    batches = -(-count * len(images) // BATCH)
    size = max(1, count // batches)  # all count alike: a small one would weigh as much as the others
    rows = [np.random.default_rng(0).permutation(len(part)) for part in images]
    for first in range(0, size * batches, size):
        wanted = np.arange(first, first + size)
        parts = [part.subset(own[wanted % len(part)]) for part, own in zip(images, rows, strict=True)]
        yield torch.cat([next(part.batches(len(part))) for part in parts])
