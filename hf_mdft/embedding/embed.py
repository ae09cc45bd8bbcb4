"""Running a tower over many images without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from ..architectures import Architecture
from ..tasks.images import Images
from .views import Offset, translate


@torch.no_grad()
def embed_images(
    tower: nn.Module,
    architecture: Architecture,
    images: Images,
    *,
    batch_size: int = 128,
    view: Callable[[torch.Tensor], torch.Tensor] | None = None,
    bf16: bool = False,
    desc: str | None = None,
) -> torch.Tensor:
    """Image embeddings `(N, width)`, fp32, on the CPU, in the images' order.

    Args:
        tower: Tower, or a PEFT model around it; runs on its own device, in evaluation mode.
        architecture: Architecture of the tower.
        images: Images, preprocessed by their own preprocessor.
        batch_size: Images of one forward pass.
        view: Function of each batch of pixel values `(batch, 3, height, width)`.
        bf16: Whether to compute in bfloat16 where that is safe (autocast).
        desc: Title of a progress bar; the default shows none.
    """
    device = next(tower.parameters()).device
    training = tower.training
    tower.eval()
    batches: Iterable[torch.Tensor] = images.batches(batch_size)
    if desc:
        batches = tqdm(batches, desc=desc, total=-(-len(images) // batch_size), leave=False)
    features = []
    for pixel_values in batches:
        pixel_values = pixel_values.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            outputs = tower(pixel_values=pixel_values if view is None else view(pixel_values))
        features.append(architecture.features(outputs).float().cpu())
    tower.train(training)
    return torch.cat(features)


def embed_views(
    tower: nn.Module,
    architecture: Architecture,
    images: Images,
    views: tuple[Offset, ...],
    **options: Any,
) -> Iterator[torch.Tensor]:
    """Image embeddings `(N, width)` under one view after the other; `options` are those of `embed_images`."""
    for offset in views:
        yield embed_images(tower, architecture, images, view=partial(translate, offset=offset), **options)
