"""Images to learn from: everything but the image is dropped before anything is read."""

from __future__ import annotations

from .depth import find_range
from .images import Images, undecoded
from .preprocessor import Preprocessor
from .reading import Reading
from .source import open_images, warn_of_dropped
from .task import Task


def read_unlabelled(name: str, task: Task, preprocessor: Preprocessor) -> Images:
    """A task's unlabelled images, preprocessed once.

    The label column goes before the first row is read, so nothing downstream can see a label.

    Raises:
        InputError: The data cannot be loaded, have no such column, or an image cannot be read.
    """
    where = f"task '{name}', unlabelled"
    dataset = open_images(task.unlabelled, task.image_column, where)
    warn_of_dropped(task.unlabelled, dataset, task.image_column, where)
    return Images.prepare(dataset, task.image_column, preprocessor, where, reading_of(name, task))


def reading_of(name: str, task: Task) -> Reading:
    """How a task's pictures are read: deep ones on the range of all of the task's pictures, whichever set they are in.

    Args:
        name: Name of the task.
        task: Options of the task.
    """

    def find() -> tuple[float, float]:
        sets = []
        for part in ("unlabelled", "evaluation"):
            if getattr(task, part) is not None:
                where = f"task '{name}', {part}"
                found = open_images(getattr(task, part), task.image_column, where)
                sets.append(undecoded(found, task.image_column, where))
        return find_range(sets, task.image_column, showing, f"task '{name}'")

    showing = task.showing()
    return Reading(showing, task.on_bad_image == "skip", find)
