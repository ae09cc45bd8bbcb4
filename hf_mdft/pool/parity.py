"""Whether a pool computes for each of its models what plain transformers computes from the same files."""

from __future__ import annotations

import torch

from ..architectures import read_config
from ..core.errors import InputError
from .manifest import ModelPool
from .source import ModelSource


IMAGES = 4
ROUNDING = 1e-3
"""Largest difference, of the largest output, that is rounding: fp16 files that transformers is asked to read in fp32,
another order of sums."""


@torch.no_grad()
def parity(pool: ModelPool) -> dict[str, float]:
    """Largest difference, of the largest output, of base and every expert on random images: logits where a model is a
    classifier, else the embedding. Experts whose names have a wrapper's prefix are left out: plain transformers does
    not find their tensors.

    Args:
        pool: Its weights are downloaded where they are not here yet.

    Raises:
        InputError: A model computes something else than plain transformers does with its files; it is named.
    """
    generator = torch.Generator().manual_seed(0)
    shape = pool.architecture.image_shape(pool.config) or (3, 224, 224)
    pixels = torch.randn(IMAGES, *shape, generator=generator)
    named: list[tuple[str | None, ModelSource]] = [(None, pool.base), *pool.experts.items()]
    found = {}
    for expert, source in named:
        weights = pool.weights(expert)
        if weights.wrapped:
            continue
        plain, is_classifier = pool.architecture.plain_outputs(source.folder, pixels)
        ours = pool.architecture.features(pool.tower(expert)(pixel_values=pixels)).float()
        if is_classifier:
            config = read_config(source.folder, str(source))
            weight, bias, _ = pool.architecture.classifier(weights, config, expert or "the base")
            ours = ours @ weight.T + bias
        found[expert or "base"] = difference = ((ours - plain).abs().max() / plain.abs().max()).item()
        if not difference <= ROUNDING:
            what = "logits" if is_classifier else "embeddings"
            raise InputError(
                f"{source}: its {what} in this pool differ from those of plain transformers by {difference:.1e} of "
                "the largest, so it would not be the same model; please report the model's id"
            )
    return found


def parity_text(found: dict[str, float]) -> str:
    """Differences as text, the largest at the end."""
    worst = max(found, key=found.__getitem__)
    return (
        f"Parity with plain transformers: {len(found)} models compute the same on {IMAGES} random images (largest "
        f"difference {found[worst]:.0e} of the largest output: {worst})"
    )
