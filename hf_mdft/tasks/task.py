"""What a task is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Task:
    """Unlabelled images of one task, and how its classes are recognised.

    Args:
        unlabelled: Images to learn from: a `datasets.Dataset`, or keyword arguments of `datasets.load_dataset`. Every
            column but the image is dropped on load; labels are never read.
        evaluation: Labelled images, in the same two forms; optional, and the only place where labels are read.
        image_column: Name of the image column, in both.
        label_column: Name of the label column in `evaluation`.
        class_names: Names of the classes in label order. The default is what the linear head or the dataset's
            `ClassLabel` says.
        templates: Prompts with `{}` for the class name, or the name of a built-in set (see `hf_mdft.heads.TEMPLATES`).
        head: `"zero_shot"`, `"linear"` (the expert's own classifier), the path of a head in safetensors, or a
            `Head`. The default is what the pool's architecture uses.
    """

    unlabelled: Any
    evaluation: Any = None
    image_column: str = "image"
    label_column: str = "label"
    class_names: list[str] | None = None
    templates: list[str] | str = "default"
    head: Any = None
