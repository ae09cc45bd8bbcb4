"""Pools of random weights: costs do not depend on the weights' values."""

from __future__ import annotations

import io
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
    """A base and experts of random weights, one for each of the tasks `task1`, `task2`, ..."""
    return ModelPool.from_pretrained(*random_models(size, experts))


def random_models(size: str, experts: int) -> tuple[Path, dict[str, Path]]:
    """Folders of a base and of experts by task: random bfloat16 weights, made once and kept in the cache."""

    def folder(number: int) -> Path:
        return prepared("bench", key_of("model 1", SIZES[size], number), lambda path: _save_model(size, number, path))

    return folder(0), {f"task{number}": folder(number) for number in range(1, experts + 1)}


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


def random_data(number: int, count: int, folder: Path) -> datasets.Dataset:
    """`count` files of noise, 32 x 32 pixels, uncompressed, in a table on disk.

    Args:
        number: Number of the task: every image of every task is another one.
        count: Number of images.
        folder: Folder of the table.
    """

    def make(rows: list[int]) -> dict[str, list]:
        noise = np.random.default_rng([number, rows[0]]).integers(0, 256, (len(rows), 32, 32, 3), dtype=np.uint8)
        return {"image": [{"bytes": _file_of(image), "path": None} for image in noise]}

    key, file = key_of("noise 1", number, count), folder / f"noise-{number}.arrow"
    datasets.Dataset.from_dict({"row": range(count)}).map(
        make,
        input_columns="row",
        batched=True,
        remove_columns="row",
        features=datasets.Features({"image": datasets.Image()}),
        cache_file_name=str(file),
        new_fingerprint=key,
        desc=f"Noise for task {number}",
    )
    return datasets.Dataset(datasets.Dataset.from_file(str(file)).data, fingerprint=key)


def _file_of(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "bmp")
    return file.getvalue()


def random_images(pool: ModelPool, tasks: list[str], count: int, folder: Path) -> dict[str, Images]:
    """`count` images of noise for each task; they are made in the folder."""
    preprocessor = Preprocessor.of(pool.base.folder, str(pool.base))
    data = {task: Task(unlabelled=random_data(number, count, folder)) for number, task in enumerate(tasks)}
    return {task: read_unlabelled(task, own, preprocessor) for task, own in data.items()}


def random_head(pool: ModelPool, seed: int, classes: int = CLASSES) -> LinearHead:
    """A linear head of so many classes, which no head of another seed shares by name."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, pool.width, generator=generator)
    return LinearHead([f"{seed}: {number}" for number in range(classes)], weight=weight, bias=torch.zeros(classes))
