"""What a run has found so far: one value for each phase, set when the phase is over and never edited."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol

from peft import PeftModel

from ..adapter import MdftConfig
from ..cards import Decision, Measured, MetaFacts, PoolFacts, SpecialistFacts, Trust
from ..core.data_reference import DataReference
from ..core.versions import versions
from ..heads import TEMPLATES, Head
from ..pool import ModelPool
from ..task_data import TaskData
from ..tasks import Task
from ..teachers import OutsideTeacher
from .provenance import continued, recipe_of


Lines = Sequence[Mapping[str, Any]]
"""Log lines of a training."""


class Made(Protocol):
    """What a record needs of a specialist."""

    task: str
    candidate_head: Head
    decision: Decision
    history: Lines
    restorations: tuple[str, ...]
    trust: Trust
    facts: SpecialistFacts | None


@dataclass
class Record:
    """What a run has found so far; every value is replaced as a whole, by the phase that found it.

    Args:
        meta: How the meta-model was made.
        measured: What was measured, by task.
        average: Average accuracy by model.
        subjects: Facts of the specialists that were measured, by task: the figures are theirs and of no others.
    """

    meta: MetaFacts | None = None
    measured: Mapping[str, Measured] = field(default_factory=dict)
    average: Mapping[str, float] = field(default_factory=dict)
    subjects: Mapping[str, SpecialistFacts | None] = field(default_factory=dict)

    def set_measured(
        self, measured: Mapping[str, Measured], average: Mapping[str, float], specialists: Mapping[str, Made]
    ) -> None:
        """After the evaluation.

        Args:
            measured: What was measured, by task.
            average: Average accuracy by model.
            specialists: The specialists that were measured, by task.
        """
        self.measured, self.average = measured, average
        self.subjects = {task: made.facts for task, made in specialists.items()}

    def measured_of(self, specialist: Made) -> Measured | None:
        """What was measured of this specialist; `None` where it was another one of the same task."""
        is_it = specialist.facts is not None and self.subjects.get(specialist.task) == specialist.facts
        return self.measured.get(specialist.task) if is_it else None

    def set_meta(
        self,
        data: TaskData,
        config: MdftConfig,
        model: PeftModel,
        phases: Mapping[str, Mapping[str, Any]],
        trained_heads: Sequence[str],
        history: Lines,
    ) -> None:
        """After phase 1: a new meta-model, of which nothing is measured yet.

        Args:
            data: Pool and tasks.
            config: Config of the adapter.
            model: The model with the adapter.
            phases: Options of the phases that were done, by name.
            trained_heads: Tasks whose heads were trained with the coefficients.
            history: Log lines of the training.
        """
        recipe = recipe_of(data.pool, data.tasks, data.heads(), config, data.seed, **phases)
        teachers = data.found_teachers()
        self.meta = meta_facts(
            pool=data.pool,
            model=model,
            unlabelled=data.references("unlabelled"),
            skipped=data.skipped(),
            trained_heads=trained_heads,
            history=history,
            recipe=_pinned(recipe, teachers),
            teachers=teachers,
        )
        self.measured, self.average, self.subjects = {}, {}, {}

    def continue_meta(self, data: TaskData, config: MdftConfig, phases: Mapping[str, Mapping[str, Any]]) -> MetaFacts:
        """The same meta-model with the tasks as they are now, and what was done since it was made or loaded.

        Args:
            data: Pool and tasks.
            config: Config of the adapter.
            phases: Options of the phases that were done, by name.
        """
        before = self.meta.unlabelled
        unlabelled = {name: found or before.get(name) for name, found in data.references("unlabelled").items()}
        recipe = recipe_of(data.pool, data.tasks, data.heads(), config, data.seed, **phases)
        if "meta" not in phases:  # only its makers could state how it was trained
            recipe = continued(self.meta.recipe, recipe, data.tasks)
        teachers = data.found_teachers()  # none where it was loaded: those that taught it are in its facts
        pool = pool_facts(data.pool, teachers) if teachers else self.meta.pool
        recipe = _pinned(recipe, teachers)
        self.meta = replace(self.meta, pool=pool, tasks=tuple(unlabelled), unlabelled=unlabelled, recipe=recipe)
        return self.meta


def pool_facts(pool: ModelPool, teachers: Mapping[str, Sequence[OutsideTeacher]] = MappingProxyType({})) -> PoolFacts:
    """What cards show of a pool, and of teachers from outside it, by task."""
    others = [teacher.source for found in teachers.values() for teacher in found]
    shown = {task: tuple(t.source.reference.shown() for t in found) for task, found in teachers.items() if found}
    return PoolFacts(pool.pinned().shown(), pool.license(others), shown)


def _pinned(recipe: Mapping[str, Any], teachers: Mapping[str, Sequence[OutsideTeacher]]) -> dict[str, Any]:
    """A recipe with its teachers' revisions."""
    specs = {task: [t.source.reference.shown().spec for t in found] for task, found in teachers.items() if found}
    tasks = {
        name: {**task, **({"teachers": specs[name]} if name in specs else {})}
        for name, task in recipe["tasks"].items()
    }
    return {**recipe, "tasks": tasks}


def meta_facts(
    *,
    pool: ModelPool,
    model: PeftModel,
    unlabelled: Mapping[str, DataReference | None],
    skipped: Mapping[str, int] = MappingProxyType({}),
    trained_heads: Iterable[str],
    history: Lines,
    recipe: Mapping[str, Any],
    teachers: Mapping[str, Sequence[OutsideTeacher]] = MappingProxyType({}),
) -> MetaFacts:
    """How a meta-model was made, right after it was.

    Args:
        pool: The pool that it is made of.
        model: The model with the adapter.
        unlabelled: Unlabelled images by task.
        skipped: Those that could not be read, by task that has such.
        trained_heads: Tasks whose heads were trained with the coefficients.
        history: Log lines of the training.
        recipe: How it was made, as a recipe.
        teachers: Teachers from outside the pool, by task.
    """
    config = model.peft_config[model.active_adapter]
    return MetaFacts(
        pool=pool_facts(pool, teachers),
        granularity=config.granularity,
        transform=dict(config.transform),
        pipeline_tag=pool.architecture.pipeline_tag(pool.config),
        loader=pool.architecture.loader(pool.config),
        tasks=tuple(unlabelled),
        unlabelled=dict(unlabelled),
        skipped=dict(skipped),
        trained_heads=tuple(sorted(trained_heads)),
        coefficients=coefficient_table(model, pool),
        history=tuple(history),
        kept=kept_ratios(history),
        recipe=recipe,
        versions=versions(),
        statistics=pool.keeps_statistics and any(unlabelled.values()),
    )


def specialist_facts(made: Made, task: Task, pool: ModelPool, meta: MetaFacts) -> SpecialistFacts:
    """How a specialist was made, right after it was.

    Args:
        made: The specialist.
        task: Its task.
        pool: The pool that the user gave.
        meta: The meta-model that it was made with.
    """
    templates = task.templates if isinstance(task.templates, list) else TEMPLATES.get(task.templates)
    return SpecialistFacts(
        task=made.task,
        meta=meta,
        gate=made.decision,
        class_names=tuple(made.candidate_head.class_names),
        features=pool.architecture.feature_expression,
        tower_loader=pool.architecture.tower_loader(pool.config),
        template=templates[0] if templates else None,
        history=tuple(made.history),
        restorations=made.restorations,
        trust=made.trust,
    )


def coefficient_table(model: PeftModel, pool: ModelPool) -> dict[str, dict[str, float]]:
    """Coefficients in use, by tensor and expert."""
    experts = list(pool.experts)
    rows = model.base_model.coefficients(model.active_adapter)
    return {name: dict(zip(experts, row.tolist(), strict=True)) for name, row in rows.items()}


def kept_ratios(history: Lines) -> dict[str, dict[str, float]]:
    """Shares of images that counted, by task and term, in the last log line."""
    lines = [line for line in history if "loss" in line]
    found: dict[str, dict[str, float]] = {}
    for key, value in (lines[-1] if lines else {}).items():
        if key.startswith("kept_") and "/" in key:
            term, _, task = key.removeprefix("kept_").partition("/")
            found.setdefault(task, {})[term] = value
    return found
