"""Models compared on the same evaluation images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ..architectures import Architecture
from ..cards import Measured
from ..core.data_reference import DataReference
from ..heads import Head
from ..pool import ModelPool
from ..tasks import Images, LabelledImages
from .accuracy import accuracy, predict
from .baselines import BASELINES, combined_tower
from .paired import average_p_value, mcnemar, paired_interval
from .report import Comparison, Overall


Predictions = Mapping[str, Mapping[str, torch.Tensor]]
"""By model and task: predicted classes `(N,)` of the evaluation images."""


@dataclass(frozen=True)
class Subject:
    """A model to measure: a tower and a head for each of its tasks.

    Args:
        name: Its name in the report.
        tasks: Tasks that it is measured on.
        tower: Tower for a task.
        head: Head for a task.
    """

    name: str
    tasks: tuple[str, ...]
    tower: Callable[[str], nn.Module]
    head: Callable[[str], Head]


def _shared(name: str, tower: nn.Module, head: Callable[[str], Head], tasks: tuple[str, ...]) -> Subject:
    return Subject(name, tasks, lambda _: tower, head)


def pool_subjects(pool: ModelPool, head: Callable[[str], Head], tasks: tuple[str, ...]) -> Iterator[Subject]:
    """Base, static merges and experts, made one after the other."""
    yield _shared("base", pool.tower(), head, tasks)
    for name, coefficient in BASELINES.items():
        yield _shared(name, combined_tower(pool, coefficient), head, tasks)
    yield Subject("expert", tuple(task for task in tasks if task in pool.experts), pool.tower, head)


def _predict_all(
    subjects: Iterable[Subject], architecture: Architecture, data: Mapping[str, LabelledImages]
) -> dict[str, dict[str, torch.Tensor]]:
    return {
        subject.name: {
            task: predict(
                subject.tower(task),
                architecture,
                subject.head(task),
                data[task].images,
                desc=f"{subject.name} {task}",
            )
            for task in subject.tasks
        }
        for subject in subjects
    }


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and what follows from it.

    Args:
        predictions: Predicted classes by model and task.
        data: Images and labels by task.
        measured: Accuracies and paired tests by task.
    """

    predictions: Predictions
    data: Mapping[str, LabelledImages]
    measured: Mapping[str, Measured]

    @property
    def accuracy(self) -> dict[str, dict[str, float]]:
        """Accuracy by model and task."""
        return {
            model: {task: found.accuracy[model] for task, found in self.measured.items() if model in found.accuracy}
            for model in self.predictions
        }

    @property
    def average(self) -> dict[str, float]:
        """Average accuracy of each model that has every task."""
        rows = {model: row for model, row in self.accuracy.items() if row and len(row) == len(self.measured)}
        return {model: sum(row.values()) / len(row) for model, row in rows.items()}

    @property
    def comparison(self) -> dict[str, Comparison]:
        """Specialist against expert, by task."""
        return {
            task: Comparison(found.difference, found.p_value, found.images, (found.overlap or 0.0) > 0.5)
            for task, found in self.measured.items()
            if found.difference is not None
        }

    @property
    def overall(self) -> Overall | None:
        """Kept specialists against experts, over the tasks that have both."""
        pairs = [task for task in self.predictions.get("specialist", {}) if task in self.predictions["expert"]]
        if not pairs:
            return None
        kept, experts = (
            {task: self.predictions[model][task] == self.data[task].labels for task in pairs}
            for model in ("specialist", "expert")
        )
        return Overall(*paired_interval(kept, experts), average_p_value(kept, experts))


def evaluate(
    subjects: Iterable[Subject],
    improved: Mapping[str, bool],
    architecture: Architecture,
    data: Mapping[str, LabelledImages],
    unlabelled: Mapping[str, Images],
    references: Mapping[str, DataReference | None],
) -> Evaluation:
    """Measure models on the same images.

    Args:
        subjects: The models, made one after the other; `specialist` of those tasks only whose kept weights lie between
            the expert's and the specialist's.
        improved: Whether the gate chose the specialist, by task, where there is one.
        architecture: Architecture of the pool.
        data: Images and labels by task.
        unlabelled: Unlabelled images of tasks that something was learned from.
        references: The evaluation data sets by task.
    """
    predictions = _predict_all(subjects, architecture, data)
    if "specialist_ungated" in predictions:
        ungated, fallback = predictions["specialist_ungated"], {**predictions.get("meta", {}), **predictions["expert"]}
        chosen = {task: (ungated if improved[task] else fallback)[task] for task in ungated}
        predictions["specialist"] = {**chosen, **predictions.get("specialist", {})}
    shares = {task: overlap(data[task].images, images) for task, images in unlabelled.items()}
    measured = {task: _measure(task, predictions, data, shares.get(task), references.get(task)) for task in data}
    return Evaluation(predictions, data, measured)


def _measure(
    task: str,
    predictions: Predictions,
    data: Mapping[str, LabelledImages],
    share: float | None,
    reference: DataReference | None,
) -> Measured:
    labels, difference, p_value = data[task].labels, None, None
    by_model = {model: row[task] for model, row in predictions.items() if task in row}
    if "specialist_ungated" in by_model and "expert" in by_model:
        ours, theirs = (by_model[model] == labels for model in ("specialist_ungated", "expert"))
        difference, p_value = (ours.float().mean() - theirs.float().mean()).item(), mcnemar(ours, theirs)
    accuracies = {model: accuracy(classes, labels) for model, classes in by_model.items()}
    return Measured(accuracies, len(labels), reference, share, difference, p_value)


def overlap(measured: Images, unlabelled: Images) -> float:
    """Share of the evaluation images that is among the unlabelled ones."""
    if measured.key == unlabelled.key:
        return 1.0
    digests = measured.digests()
    return len(digests & unlabelled.digests()) / len(digests)
