"""Models compared on the same evaluation images."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from accelerate.utils import gather_object
from torch import nn

from ..architectures import Architecture
from ..cards import Difference, Measured
from ..core.data_reference import DataReference
from ..core.errors import InputError
from ..core.processes import own_share
from ..embedding.views import TEST_VIEWS
from ..experts import TaskExperts
from ..heads import Head
from ..pool import ModelPool
from ..tasks import Images, LabelledImages
from .accuracy import accuracy
from .baselines import BASELINES, combined_tower
from .experts import Ensembles
from .outputs import PLAIN, Outputs, look
from .paired import average_p_value, mcnemar, paired_interval
from .report import Comparison
from .transductive import TransductiveMethod


Predictions = Mapping[str, Mapping[str, torch.Tensor]]
"""By model and task: predicted classes `(N,)` of the evaluation images."""

VIEWS = "_views"
"""Ending of a model's name where its predictions are averaged over views."""


@dataclass(frozen=True)
class Subject:
    """A model to measure: a tower and a head for each of its tasks.

    Args:
        name: Its name in the report.
        tasks: Tasks that it is measured on.
        tower: Tower for a task.
        head: Head for a task.
        views: Tasks on which its predictions over views are wanted too.
        methods: Training-free methods on its outputs, by name.
    """

    name: str
    tasks: tuple[str, ...]
    tower: Callable[[str], nn.Module]
    head: Callable[[str], Head]
    views: Collection[str] = ()
    methods: Mapping[str, TransductiveMethod] = field(default_factory=dict)


def _shared(name: str, tower: nn.Module, head: Callable[[str], Head], tasks: tuple[str, ...]) -> Subject:
    return Subject(name, tasks, lambda _: tower, head)


def pool_subjects(
    pool: ModelPool,
    head: Callable[[str], Head],
    taken: Mapping[str, str],
    experts: Callable[[str], TaskExperts],
    tasks: tuple[str, ...],
    methods: Mapping[str, TransductiveMethod],
    unlabelled: Mapping[str, Images],
) -> Iterator[Subject | Ensembles]:
    """Base, static merges and experts, made one after the other; training-free methods read the experts' outputs.

    Args:
        pool: The pool.
        head: Gives the head of a task.
        taken: The expert that one would take without labels, by task.
        experts: Gives the experts of a task.
        tasks: Tasks that they are measured on.
        methods: Training-free methods, by name.
        unlabelled: Unlabelled images by task, where there are any.
    """
    yield _shared("base", pool.tower(), head, tasks)
    images = list(unlabelled.values())
    known = images or not pool.keeps_statistics  # else nothing tells their running statistics
    for name, coefficient in BASELINES.items() if known else ():
        yield _shared(name, combined_tower(pool, coefficient, images), head, tasks)
    having = tuple(task for task in tasks if taken[task])

    def tower(task: str) -> nn.Module:
        return pool.tower(taken[task])

    yield Subject("expert", having, tower, lambda task: experts(task).heads[taken[task]], having, methods)
    if any(len(pool.experts_of(task)) > 1 for task in tasks):
        yield Ensembles(having, {task: experts(task) for task in having}, unlabelled)


def _predict_all(
    subjects: Iterable[Subject | Ensembles], architecture: Architecture, data: Mapping[str, LabelledImages]
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, float]]:
    """Predictions on the tasks that there are data of, and the seconds that training-free methods took, by name."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    seconds: dict[str, float] = {}
    for subject in subjects:
        tasks = [task for task in subject.tasks if task in data]
        if isinstance(subject, Ensembles):
            for task in tasks:
                for name, classes in subject.predictions(task, data[task].images).items():
                    found.setdefault(name, {})[task] = classes
            continue
        over_views = f"{subject.name}{VIEWS}"
        found |= {name: {} for name in (subject.name, *([over_views] if subject.views else []), *subject.methods)}
        for task in tasks:
            tower, head = subject.tower(task), subject.head(task)
            views = TEST_VIEWS if task in subject.views else PLAIN
            seen = look(tower, architecture, head, data[task].images, views=views, desc=f"{subject.name} {task}")
            found[subject.name][task] = seen.classes
            if task in subject.views:
                found[over_views][task] = seen.classes_over_views
            for name, method in subject.methods.items():
                start = time.perf_counter()
                found[name][task] = transduced(name, method, seen, task)
                seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
    return found, seconds


def _predict_together(
    subjects: Iterable[Subject | Ensembles], architecture: Architecture, data: Mapping[str, LabelledImages]
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, float]]:
    """As `_predict_all`; every process looks at some of the tasks, and has all of it in the end."""
    mine = own_share({task: len(found.images) for task, found in data.items()})
    parts = gather_object([_predict_all(subjects, architecture, {task: data[task] for task in mine})])
    models = dict.fromkeys(model for found, _ in parts for model in found)
    whole = {model: {t: found[model][t] for t in data for found, _ in parts if t in found[model]} for model in models}
    names = dict.fromkeys(name for _, seconds in parts for name in seconds)
    return whole, {name: sum(seconds.get(name, 0.0) for _, seconds in parts) for name in names}


def transduced(name: str, method: TransductiveMethod, seen: Outputs, task: str) -> torch.Tensor:
    """Classes `(N,)` predicted by a training-free method from a model's outputs on all images of a task.

    Raises:
        InputError: It gives something else than probabilities.
    """
    found = method(seen.logits.softmax(dim=-1), seen.features)
    if found.shape != seen.logits.shape or found.isnan().any():
        shape = "numbers that are none" if found.shape == seen.logits.shape else f"shape {tuple(found.shape)}"
        raise InputError(f"baseline '{name}': task '{task}': expected {tuple(seen.logits.shape)}, got {shape}")
    return found.argmax(dim=-1)


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and what follows from it.

    Args:
        predictions: Predicted classes by model and task.
        data: Images and labels by task.
        measured: Accuracies and paired tests by task.
        seconds: What training-free methods took, by name.
    """

    predictions: Predictions
    data: Mapping[str, LabelledImages]
    measured: Mapping[str, Measured]
    seconds: Mapping[str, float] = field(default_factory=dict)

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
    def comparison_views(self) -> dict[str, Difference]:
        """Kept specialist in one pass against the expert over views, by task."""
        return {task: found.beside_views for task, found in self.measured.items() if found.beside_views is not None}

    def overall(self, model: str = "specialist", reference: str = "expert") -> Difference | None:
        """One model against another, over the tasks that have both; `None` where there are none."""
        pairs = [task for task in self.predictions.get(model, {}) if task in self.predictions.get(reference, {})]
        if not pairs:
            return None
        ours, theirs = (
            {task: self.predictions[name][task] == self.data[task].labels for task in pairs}
            for name in (model, reference)
        )
        return Difference(*paired_interval(ours, theirs), average_p_value(ours, theirs))


def evaluate(
    subjects: Iterable[Subject | Ensembles],
    improved: Mapping[str, bool],
    architecture: Architecture,
    data: Mapping[str, LabelledImages],
    unlabelled: Mapping[str, Images],
    references: Mapping[str, DataReference | None],
    share: bool = False,
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
        share: Whether all processes call this, and share the tasks out among them.
    """
    predictions, seconds = (_predict_together if share else _predict_all)(subjects, architecture, data)
    if "specialist_ungated" in predictions:
        for views in ("", VIEWS):
            ungated, meta, expert = (
                predictions.get(f"{model}{views}", {}) for model in ("specialist_ungated", "meta", "expert")
            )
            between = predictions.get(f"specialist{views}", {})  # weights between the two
            predictions[f"specialist{views}"] = {
                task: {**(ungated if improved[task] else {**meta, **expert}), **between}[task]
                for task in predictions["specialist_ungated"]
            }
        for model in ("specialist_ungated", "meta"):  # of some tasks only: what was kept there
            predictions.pop(f"{model}{VIEWS}", None)
    shares = {task: overlap(data[task].images, images) for task, images in unlabelled.items()}
    measured = {task: _measure(task, predictions, data, shares.get(task), references.get(task)) for task in data}
    return Evaluation(predictions, data, measured, seconds)


def _measure(
    task: str,
    predictions: Predictions,
    data: Mapping[str, LabelledImages],
    share: float | None,
    reference: DataReference | None,
) -> Measured:
    labels, difference, p_value, beside_views = data[task].labels, None, None, None
    by_model = {model: row[task] for model, row in predictions.items() if task in row}
    if "specialist_ungated" in by_model and "expert" in by_model:
        ours, theirs = (by_model[model] == labels for model in ("specialist_ungated", "expert"))
        difference, p_value = (ours.float().mean() - theirs.float().mean()).item(), mcnemar(ours, theirs)
    if "specialist" in by_model and f"expert{VIEWS}" in by_model:
        ours, theirs = (by_model[model] == labels for model in ("specialist", f"expert{VIEWS}"))
        beside_views = Difference(*paired_interval({task: ours}, {task: theirs}), mcnemar(ours, theirs))
    accuracies = {model: accuracy(classes, labels) for model, classes in by_model.items()}
    return Measured(accuracies, len(labels), reference, share, difference, p_value, beside_views)


def overlap(measured: Images, unlabelled: Images) -> float:
    """Share of the evaluation images that is among the unlabelled ones."""
    if measured.key == unlabelled.key:
        return 1.0
    digests = measured.digests()
    return len(digests & unlabelled.digests()) / len(digests)
