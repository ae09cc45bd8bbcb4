"""Running a tower over many images without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from tqdm.auto import tqdm

from ..architectures import Architecture
from .images import Images


@torch.no_grad()
def embed_images(
    tower: nn.Module,
    architecture: Architecture,
    images: Images,
    *,
    batch_size: int = 64,
    view: Callable[[torch.Tensor], torch.Tensor] | None = None,
    desc: str | None = None,
) -> torch.Tensor:
    """Image embeddings `(N, width)`, fp32, on the CPU, in the images' order.

    Args:
        tower: The model, or a PEFT model around it; runs on its own device, in evaluation mode.
        view: Applied to each batch of pixel values `(batch, 3, height, width)`.
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
        outputs = tower(pixel_values=pixel_values if view is None else view(pixel_values))
        features.append(architecture.features(outputs).float().cpu())
    tower.train(training)
    return torch.cat(features)
