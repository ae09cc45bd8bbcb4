"""Images with labels: for evaluation only."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..core.errors import InputError
from .images import Images
from .labels import known_labels, label_classes
from .preprocessor import Preprocessor
from .source import LISTS, check_column, open_dataset, open_images, warn_of_dropped
from .task import Task
from .unlabelled import reading_of


@dataclass
class LabelledImages:
    """Images and their labels `(N,)`, as indices into the head's classes; and which class each label of the data set
    was matched to, in the order of the classes."""

    images: Images
    labels: torch.Tensor
    pairs: tuple[tuple[str, str], ...] = ()


def read_labelled(
    name: str, task: Task, class_names: list[str], preprocessor: Preprocessor, part: str = "evaluation"
) -> LabelledImages:
    """A task's evaluation images and labels, with labels matched to `class_names` by name (see `label_classes`).

    `part="unlabelled"` reads the labels of the images to learn from, where they have any: for studies that choose
    among them by class.

    Raises:
        InputError: The data cannot be loaded, are a list, lack a column, or have labels that are not the task's.
    """
    spec, where = getattr(task, part), f"task '{name}', {part}"
    if isinstance(spec, LISTS):
        raise InputError(
            f"{where}: a list of images has no labels; give a datasets.Dataset, which Dataset.from_list(rows) makes "
            "of rows that have them, or a folder with a folder for each class"
        )
    dataset = open_dataset(spec, where, task.image_column, known_labels(class_names, task.label_names))
    check_column(dataset, task.image_column, "image_column", where)
    check_column(dataset, task.label_column, "label_column", where)
    columns = open_images(spec, task.image_column, where, dataset)
    warn_of_dropped(spec, columns, task.image_column, where)
    images = Images.prepare(columns, task.image_column, preprocessor, where, reading_of(name, task))
    rows = images.rows.tolist()
    labels, matched = label_classes(dataset, task.label_column, rows, class_names, task.label_names, where)
    pairs = tuple((label, class_names[number]) for label, number in sorted(matched.items(), key=lambda item: item[1]))
    return LabelledImages(images, torch.tensor(labels), pairs)
