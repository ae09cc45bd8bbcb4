"""The pictures behind a task's images, as a viewer shows them, for models of another input size."""

from __future__ import annotations

from collections.abc import Iterator

import datasets
import numpy as np
from PIL import Image

from .decode import decode
from .images import Images, undecoded
from .source import open_images
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
    dataset = _source(images, name, task)
    for start in range(0, len(images), size):
        rows = range(start, min(start + size, len(images)))
        if dataset is None:
            yield [Image.fromarray(pixels) for pixels in images.pixels(rows).permute(0, 2, 3, 1).numpy()]
            continue
        chosen = images.rows[np.asarray(rows)].tolist()
        values = dataset[chosen][task.image_column]
        yield [decode(value, images.showing) for value in values]


def _source(images: Images, name: str, task: Task) -> datasets.Dataset | None:
    if task.unlabelled is None:
        return None
    where = f"task '{name}', unlabelled"
    dataset = undecoded(open_images(task.unlabelled, task.image_column, where), task.image_column, where)
    return dataset if images.made_from(dataset, task.image_column) else None
