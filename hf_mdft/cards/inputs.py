"""What a run was given, task by task, as the first minute finds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.tables import text_table


SHOWN = 3
"""Class names, and pairs of label and class, that a table shows."""


@dataclass(frozen=True)
class TaskInputs:
    """One task's images, classes and models.

    Args:
        images: Unlabelled images.
        skipped: Unlabelled images that could not be read.
        evaluation: Evaluation images; `None` where there are none.
        skipped_evaluation: Those that could not be read.
        height, width: Size of what the model sees, in pixels.
        class_names: Names of the classes.
        classes_from: Where they come from.
        labels: Label of the data set and class that it was matched to, in the order of the classes.
        experts: Ids of the experts; none for a task without one.
        head: Kind of the head.
        processor: Id of the model whose image processor is used.
    """

    images: int
    skipped: int
    evaluation: int | None
    skipped_evaluation: int
    height: int
    width: int
    class_names: tuple[str, ...]
    classes_from: str
    labels: tuple[tuple[str, str], ...]
    experts: tuple[str, ...]
    head: str
    processor: str

    def cells(self) -> list[str]:
        """As a row of a table."""
        return [
            _counted(self.images, self.skipped),
            "-" if self.evaluation is None else _counted(self.evaluation, self.skipped_evaluation),
            f"{self.height} x {self.width}",
            f"{len(self.class_names)}: {_some(self.class_names)} ({self.classes_from})",
            self._pairing(),
            _some([expert.rstrip("/").rsplit("/", 1)[-1] for expert in self.experts]) or "none",
            self.head,
            self.processor.rstrip("/").rsplit("/", 1)[-1],
        ]

    def _pairing(self) -> str:
        """What labels were matched to: those that are spelled in another way."""
        other = [f"{label} = {name}" for label, name in self.labels if label != name]
        return _some(other) or ("by name" if self.labels else "-")


HEADER = ["task", "unlabelled", "evaluation", "size", "classes", "labels", "experts", "head", "processor"]


def inputs_text(inputs: Mapping[str, TaskInputs]) -> str:
    """A table for a terminal."""
    return text_table(HEADER, [[task, *found.cells()] for task, found in inputs.items()], left=len(HEADER))


def _counted(count: int, skipped: int) -> str:
    return f"{count:,} ({skipped:,} skipped)" if skipped else f"{count:,}"


def _some(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
