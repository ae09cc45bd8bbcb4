"""Embeddings by the experts and the base: they never change, so they are computed once and kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..core.cache import key_of, prepared
from ..core.device import fast_bf16
from ..pool import ModelPool
from ..tasks import Images
from .embed import embed_views
from .views import TEST_VIEWS, Offset


VERSION = 3
"""Version of the kept embeddings; another one for every change of how they are computed."""


def expert_features(
    pool: ModelPool,
    task: str | None,
    images: Images,
    *,
    views: tuple[Offset, ...] = TEST_VIEWS[:1],
    device: torch.device | str = "cpu",
    desc: str | None = None,
) -> Iterator[torch.Tensor]:
    """Image embeddings `(N, width)` under one view after the other, computed the first time only; in bfloat16 where
    that is faster, for they are soft targets, not results.

    Args:
        pool: Base and experts.
        task: Task whose expert is run; `None` for the base.
        images: Unlabelled images.
        views: Offsets of the V views, in steps; the default is the image as it is.
        device: Device that the model runs on.
        desc: Title of progress bars; the default shows none.
    """
    tower, bf16 = None, fast_bf16(device)
    identity = pool.identity(task)
    for number, offset in enumerate(views):

        def make(folder: Path, offset: Offset = offset, number: int = number) -> None:
            nonlocal tower
            tower = tower or pool.tower(task).to(device)
            title = desc and (f"{desc}, view {number + 1} of {len(views)}" if len(views) > 1 else desc)
            (features,) = embed_views(tower, pool.architecture, images, (offset,), desc=title, bf16=bf16)
            save_file({"features": features}, folder / "features.safetensors")

        folder = prepared("features", key_of("features", VERSION, identity, images.key, offset, bf16), make)
        yield load_file(folder / "features.safetensors")["features"]
