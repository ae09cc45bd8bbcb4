"""Images with labels: for evaluation only."""

from __future__ import annotations

from dataclasses import dataclass

import datasets
import torch

from ..core.class_names import displaced_classes, order_by_name, same_classes
from ..core.errors import InputError
from .images import Images
from .preprocessor import Preprocessor
from .source import check_column, open_dataset
from .task import Task


@dataclass
class LabelledImages:
    """Images and their labels `(N,)`, as indices into the head's classes."""

    images: Images
    labels: torch.Tensor


def read_labelled(
    name: str, task: Task, class_names: list[str], preprocessor: Preprocessor, part: str = "evaluation"
) -> LabelledImages:
    """A task's evaluation images and labels, with labels in the order of `class_names`.

    Where the dataset names its classes with the same names in another order, labels are mapped by name; where the
    names differ (prompt names against dataset names), the order counts. `part="unlabelled"` reads the labels of the
    images to learn from, where they have any: for studies that choose among them by class.

    Raises:
        InputError: The data cannot be loaded, lack a column, or have another number of classes.
    """
    where = f"task '{name}', {part}"
    dataset = open_dataset(getattr(task, part), where)
    check_column(dataset, task.image_column, "image_column", where)
    check_column(dataset, task.label_column, "label_column", where)
    images = Images.prepare(dataset.select_columns([task.image_column]), task.image_column, preprocessor, where)
    feature = dataset.features[task.label_column]
    if not isinstance(feature, datasets.ClassLabel) and feature.dtype not in ("int8", "int16", "int32", "int64"):
        raise InputError(f"{where}: label column '{task.label_column}' holds {feature}, expected integers")
    names = getattr(feature, "names", None)
    if names and len(names) != len(class_names):
        raise InputError(
            f"{where}: the dataset has {len(names)} classes, the head of task '{name}' has {len(class_names)}"
        )
    values = dataset.with_format("arrow")[:][task.label_column].to_pylist()
    if None in values:
        raise InputError(f"{where}: row {values.index(None)} has no label; drop it or take another split")
    labels = torch.tensor(values)
    if int(labels.min()) < 0 or int(labels.max()) >= len(class_names):
        raise InputError(
            f"{where}: labels lie in {int(labels.min())}..{int(labels.max())}, the head of task '{name}' has "
            f"{len(class_names)} classes (-1 means that a split's labels are hidden)"
        )
    if names and same_classes(names, class_names):
        labels = torch.tensor(order_by_name(names, class_names))[labels]
    elif names and (displaced := displaced_classes(names, class_names)):
        raise InputError(
            f"{where}: the dataset and the head of task '{name}' both name class '{displaced[0]}', at different "
            "positions, but not all classes alike, so labels cannot be matched: give class_names as the dataset has "
            f"them ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
        )
    return LabelledImages(images, labels)
