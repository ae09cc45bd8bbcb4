"""Pools of random weights: costs do not depend on the weights' values."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from ..core.cache import key_of, prepared
from ..heads import LinearHead
from ..pool import ModelPool
from ..tasks import Images, Preprocessor, Task, read_unlabelled


SIZES: dict[str, dict[str, int]] = {
    "vit-b-32": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 32},
    "vit-b-16": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 16},
    "vit-l-14": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14},
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 16, "image_size": 32},
}
"""Vision towers of CLIP's sizes, and one for trying the benchmark out."""

CLASSES = 100


def random_pool(size: str, experts: int) -> ModelPool:
    """A base and experts of random bfloat16 weights, made once and kept in the cache."""

    def folder(number: int) -> Path:
        return prepared("bench", key_of("model 1", SIZES[size], number), lambda path: _save_model(size, number, path))

    return ModelPool.from_pretrained(folder(0), {f"task{number}": folder(number) for number in range(1, experts + 1)})


def config_of(size: str) -> CLIPVisionConfig:
    """Configuration of a size's vision tower."""
    return CLIPVisionConfig(**{"image_size": 224, "intermediate_size": 4 * SIZES[size]["hidden_size"], **SIZES[size]})


def _save_model(size: str, number: int, folder: Path) -> None:
    config = config_of(size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tower = CLIPVisionModel(config)
        torch.manual_seed(number)
        if number:
            with torch.no_grad():
                for parameter in tower.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=1e-3)
    tower.to(torch.bfloat16).save_pretrained(folder)
    side = {"height": config.image_size, "width": config.image_size}
    CLIPImageProcessor(size=side, crop_size=side).save_pretrained(folder)


def random_images(pool: ModelPool, tasks: list[str], count: int) -> dict[str, Images]:
    """`count` images of noise for each task."""
    preprocessor, found = Preprocessor.of(pool.base.folder, str(pool.base)), {}
    for number, task in enumerate(tasks):
        noise = np.random.default_rng(number).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        data = datasets.Dataset.from_dict(
            {"image": [Image.fromarray(image) for image in noise]}, datasets.Features({"image": datasets.Image()})
        )
        found[task] = read_unlabelled(task, Task(unlabelled=data), preprocessor)
    return found


def random_head(pool: ModelPool, seed: int) -> LinearHead:
    """A linear head of `CLASSES` classes."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(CLASSES, pool.tower().config.hidden_size, generator=generator)
    return LinearHead([str(number) for number in range(CLASSES)], weight=weight, bias=torch.zeros(CLASSES))
