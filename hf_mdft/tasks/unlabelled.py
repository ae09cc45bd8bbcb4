"""Images to learn from: everything but the image is dropped before anything is read."""

from __future__ import annotations

from .images import Images
from .preprocessor import Preprocessor
from .source import check_column, open_dataset
from .task import Task


def read_unlabelled(name: str, task: Task, preprocessor: Preprocessor) -> Images:
    """A task's unlabelled images, preprocessed once.

    The label column goes before the first row is read, so nothing downstream can see a label.

    Raises:
        InputError: The data cannot be loaded, have no such column, or an image cannot be read.
    """
    where = f"task '{name}', unlabelled"
    dataset = open_dataset(task.unlabelled, where)
    check_column(dataset, task.image_column, "image_column", where)
    return Images.prepare(dataset.select_columns([task.image_column]), task.image_column, preprocessor, where)
