"""Which models a run compares, and its report."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

from peft import PeftModel
from torch import nn

from .artifacts import Record
from .artifacts.record import coefficient_table
from .cards import refuse_reserved
from .core.device import best_device
from .core.errors import InputError
from .core.memory import peak_memory_bytes
from .core.typed import expect
from .core.versions import versions
from .evaluation import Report, TransductiveMethod
from .evaluation.compare import Evaluation, Subject, evaluate, pool_subjects
from .evaluation.report import History
from .experts import TaskExperts
from .heads import Head
from .pool import ModelPool
from .specialize import Specialist
from .tasks import Images, LabelledImages, Task


class Run(Protocol):
    """What a comparison needs of a `MetaMerger`."""

    pool: ModelPool
    tasks: Mapping[str, Task]
    seed: int
    model: PeftModel | None
    specialists: Mapping[str, Specialist]
    rounds: list[dict[str, Specialist]]
    timing: Mapping[str, float]
    record: Record

    def head(self, task: str) -> Head: ...
    def expert(self, task: str) -> str | None: ...
    def experts(self, task: str, device: Any = "cpu") -> TaskExperts: ...
    def meta_head(self, task: str) -> Head: ...
    def meta_tower(self) -> nn.Module: ...
    def unlabelled(self, task: str) -> Images: ...
    def labelled(self, task: str) -> LabelledImages | None: ...
    def references(self, key: str, names: Any = None) -> dict[str, Any]: ...


def compare(run: Run, baselines: Mapping[str, Run | TransductiveMethod], share: bool = False) -> Evaluation:
    """Measure a run's models on its tasks' evaluation images, and record what was found. Reads labels.

    Args:
        run: The run.
        baselines: Further runs of the same tasks, by the name that they have in the report: their specialists are
            measured where they have any, else their meta-models. Or training-free methods.
        share: Whether all processes call this, and share the tasks out among them.

    Raises:
        InputError: A baseline has the name of a model that is compared anyway.
    """
    for name, other in expect(baselines, Mapping, "baselines").items():
        refuse_reserved(name)
        if not callable(other) and not hasattr(other, "specialists"):
            raise InputError(f"baseline '{name}' must be a MetaMerger or a method, got {type(other).__name__}")
    data = {task: found for task in run.tasks if (found := run.labelled(task)) is not None}
    # Where nothing was learned there is nothing to compare the images with.
    used = [task for task in data if run.model is not None and run.tasks[task].unlabelled is not None]
    found = evaluate(
        _subjects(run, tuple(data), baselines),
        {task: specialist.improved for task, specialist in run.specialists.items()},
        run.pool.architecture,
        data,
        {task: run.unlabelled(task) for task in used},
        run.references("evaluation", data),
        share,
    )
    run.record.set_measured(found.measured, found.average, run.specialists)
    return found


def _subjects(
    run: Run, tasks: tuple[str, ...], baselines: Mapping[str, Run | TransductiveMethod]
) -> Iterator[Subject]:
    methods = {name: other for name, other in baselines.items() if callable(other)}
    taken = {task: run.expert(task) for task in tasks}
    needing = run.tasks if run.pool.keeps_statistics else [t for t in tasks if len(run.pool.experts_of(t)) > 1]
    unlabelled = {task: run.unlabelled(task) for task in needing if run.tasks[task].unlabelled is not None}
    yield from pool_subjects(
        run.pool, run.head, taken, lambda task: run.experts(task, best_device()), tasks, methods, unlabelled
    )
    for name, other in baselines.items():
        if name not in methods:
            yield _held(name, other, tasks, other.specialists) if other.specialists else _combined(name, other, tasks)
    # Over views the kept model of each task, and no other, is run: the candidate, or what stands in for it.
    kept = {task for task, specialist in run.specialists.items() if specialist.improved}
    if run.model is not None:
        stands_in = [task for task in run.specialists if task not in kept and not run.pool.experts_of(task)]
        yield _combined("meta", run, tasks, stands_in)
    if run.specialists:
        between = {task: s for task, s in run.specialists.items() if 0 < s.decision.share < 1}
        yield _held("specialist_ungated", run, tasks, run.specialists, gated=False, views=kept - between.keys())
        if between:
            yield _held("specialist", run, tasks, between, views=between.keys())
    for number, held in enumerate(run.rounds[:-1], start=1):
        yield _held(f"specialist_round_{number}", run, tasks, held)


def _combined(name: str, run: Run, tasks: tuple[str, ...], views: Collection[str] = ()) -> Subject:
    tower = run.meta_tower()
    return Subject(name, tasks, lambda _: tower, run.meta_head, views)


def _held(
    name: str,
    run: Run,
    tasks: tuple[str, ...],
    specialists: Mapping[str, Specialist],
    gated: bool = True,
    views: Collection[str] = (),
) -> Subject:
    made = tuple(task for task in tasks if task in specialists)

    def head(task: str) -> Head:
        return specialists[task].head if gated else specialists[task].candidate_head

    return Subject(name, made, lambda task: specialists[task].tower(gated=gated), head, views)


def report_of(run: Run, found: Evaluation) -> Report:
    """Everything that a run found."""
    meta = run.record.meta
    return Report(
        tasks=tuple(run.tasks),
        accuracy=found.accuracy,
        average=found.average,
        comparison=found.comparison,
        overall=found.overall(),
        comparison_views=found.comparison_views,
        overall_views=found.overall("specialist", "expert_views"),
        overall_both_views=found.overall("specialist_views", "expert_views"),
        overall_ensemble_views=found.overall("specialist", "ensemble_views"),
        gate={task: specialist.decision for task, specialist in run.specialists.items()},
        trust={task: specialist.trust for task, specialist in run.specialists.items()},
        restorations={task: specialist.restorations for task, specialist in run.specialists.items()},
        coefficients={} if run.model is None else coefficient_table(run.model, run.pool),
        history=History(
            () if meta is None else meta.history,
            {task: tuple(specialist.history) for task, specialist in run.specialists.items()},
        ),
        timing_s={**run.timing, **{f"baseline {name}": seconds for name, seconds in found.seconds.items()}},
        peak_memory_bytes=peak_memory_bytes() or 0,
        pool=run.pool.reference(),
        versions=versions(),
        seed=run.seed,
    )
