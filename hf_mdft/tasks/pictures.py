"""The pictures behind a task's images, as a viewer shows them, for models of another input size."""

from __future__ import annotations

from collections.abc import Iterator

import datasets
import numpy as np
from PIL import Image

from .images import Images, decode
from .source import open_dataset
from .task import Task


def pictures(images: Images, name: str, task: Task, size: int) -> Iterator[list[Image.Image]]:
    """Pictures in the images' order, `size` at a time: those of the task's data set in full, where the images were
    made from it; else the images themselves, as the pool's models see them.

    Args:
        images: Unlabelled images.
        name: Name of the task.
        task: Options of the task.
        size: Pictures of a batch.
    """
    dataset, where = _source(images, name, task), f"task '{name}', unlabelled"
    for start in range(0, len(images), size):
        rows = range(start, min(start + size, len(images)))
        if dataset is None:
            yield [Image.fromarray(pixels) for pixels in images.pixels(rows).permute(0, 2, 3, 1).numpy()]
            continue
        chosen = images.rows[np.asarray(rows)].tolist()
        values = dataset[chosen][task.image_column]
        yield [decode(value, row, where) for value, row in zip(values, chosen, strict=True)]


def _source(images: Images, name: str, task: Task) -> datasets.Dataset | None:
    if task.unlabelled is None:
        return None
    dataset = open_dataset(task.unlabelled, f"task '{name}', unlabelled").select_columns([task.image_column])
    dataset = dataset.cast_column(task.image_column, datasets.Image(decode=False))
    return dataset if images.made_from(dataset, task.image_column) else None
