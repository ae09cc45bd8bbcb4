"""What the experts see: never changes, so it is computed once and kept."""

from __future__ import annotations

import torch
from safetensors.torch import load_file, save_file

from ..cache import key_of, prepared
from ..pool import ModelPool
from ..tasks import Images, embed_images


def expert_features(
    pool: ModelPool, task: str | None, images: Images, *, device: torch.device | str = "cpu", desc: str | None = None
) -> torch.Tensor:
    """Image embeddings `(N, width)` of a task's expert (of the base for `None`), computed the first time only."""
    source = pool.base if task is None else pool.experts[task]
    key = key_of("features 1", source.revision, images.key)

    def make(folder) -> None:
        tower = pool.tower(task).to(device)
        features = embed_images(tower, pool.architecture, images, desc=desc)
        save_file({"features": features}, folder / "features.safetensors")

    return load_file(prepared("features", key, make) / "features.safetensors")["features"]
