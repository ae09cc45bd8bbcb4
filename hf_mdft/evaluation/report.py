"""What a run found, in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..cards import Decision, Difference, TaskInputs, Trust, compared, in_order
from ..cards.roster import VIEWS
from ..core.json_files import plain, write_json
from ..core.reference import several
from ..core.tables import text_table
from ..core.timing import LATER_META


SCHEMA = 2


@dataclass(frozen=True)
class Comparison:
    """A specialist before the gate and its expert, on the same images.

    Args:
        difference: Accuracy of the specialist minus that of the expert.
        p_value: McNemar's exact test of the difference.
        images: Number of images.
        transductive: Whether most of them were among the unlabelled images.
    """

    difference: float
    p_value: float
    images: int
    transductive: bool


@dataclass(frozen=True)
class History:
    """Log lines of the trainings.

    Args:
        meta: Lines of phase 1.
        specialists: Lines of phase 2, by task.
    """

    meta: tuple[Mapping[str, Any], ...] = ()
    specialists: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        label: Name of the model.
        cells: Its accuracy in percent for each task and on average.
        passes: Forward passes per image at test time.
        training_s: Seconds of its training; `None` where nothing was trained.
    """

    label: str
    cells: list[str]
    passes: int
    training_s: float | None


@dataclass(frozen=True)
class Report:
    """Figures of a run; `to_dict()` is `results.json`.

    Args:
        tasks: Names of the tasks.
        inputs: What every task was given.
        accuracy: Accuracy by model and task, 0 to 1.
        average: Average accuracy by model, where a model has all tasks that were measured.
        comparison: Specialist against expert, by task.
        overall: Kept specialists against experts, averaged over tasks; `None` where there are none.
        comparison_views: Kept specialist against the expert over nine views, by task.
        overall_views: The same, averaged over tasks.
        overall_both_views: Kept specialists against experts, both over nine views, averaged over tasks.
        overall_ensemble_views: Kept specialists in one pass against the ensembles of their tasks' experts over nine
            views, averaged over tasks; `None` where no task has several.
        gate: The gate's decision by task.
        trust: What was found without labels of the experts, by task that has specialists.
        restorations: What was done to the images that experts taught from, by task, in order; empty where they were
            taken as they are.
        coefficients: Coefficients of the meta-model by tensor and expert.
        history: Log lines of both phases.
        timing_s: Seconds by stage.
        peak_memory_bytes: Largest memory of the process, file-backed pages included; 0 where it is not known.
        pool: Reference of the pool, with revisions.
        versions: Versions of Python and packages.
        seed: Seed of the run.
    """

    tasks: tuple[str, ...]
    accuracy: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    average: Mapping[str, float] = field(default_factory=dict)
    comparison: Mapping[str, Comparison] = field(default_factory=dict)
    overall: Difference | None = None
    comparison_views: Mapping[str, Difference] = field(default_factory=dict)
    overall_views: Difference | None = None
    overall_both_views: Difference | None = None
    overall_ensemble_views: Difference | None = None
    gate: Mapping[str, Decision] = field(default_factory=dict)
    trust: Mapping[str, Trust] = field(default_factory=dict)
    restorations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    coefficients: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    history: History = History()
    timing_s: Mapping[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    pool: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    inputs: Mapping[str, TaskInputs] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """`results.json`: every key is there, whatever was measured."""
        history = {"meta": plain(self.history.meta), "specialists": plain(self.history.specialists)}
        fields = {name: plain(value) for name, value in vars(self).items() if name != "history"}
        return {"schema": SCHEMA, **fields, "passes": self.passes, "history": history}

    @property
    def passes(self) -> dict[str, int]:
        """Forward passes per image at test time, by model; the most of a task."""
        experts = max((len(several(found)) for found in self.pool.get("experts", {}).values()), default=1)
        return {name: compared(name).passes_with(experts) for name in self.accuracy}

    def save(self, path: str | Path) -> None:
        """Write `results.json`."""
        write_json(Path(path), self.to_dict())

    def training_s(self, name: str) -> float | None:
        """Seconds that all of a model's training took, its meta-model included; `None` where nothing was trained."""
        if name == "meta":
            return self.timing_s.get("meta")
        if name in ("specialist_ungated", "specialist", "specialist_views"):
            metas = ("meta", LATER_META)
            return sum(s for stage, s in self.timing_s.items() if stage in metas or stage.startswith("specialist "))
        return self.timing_s.get(f"baseline {name}")

    def rows(self) -> list[Row]:
        """Lines of the table."""
        lines = []
        for name in in_order(name for name, row in self.accuracy.items() if row):
            row = [*(self.accuracy[name].get(task) for task in self.tasks), self.average.get(name)]
            cells = ["-" if value is None else f"{100 * value:.1f}" for value in row]
            lines.append(Row(compared(name).label, cells, self.passes[name], self.training_s(name)))
        return lines

    def tests(self) -> list[str]:
        """Paired tests over all tasks, in words."""
        found = {
            "Specialists over experts": self.overall,
            f"Specialists over experts with {VIEWS} views": self.overall_views,
            f"Both with {VIEWS} views": self.overall_both_views,
            f"Specialists over ensembles of experts with {VIEWS} views": self.overall_ensemble_views,
        }
        return [
            f"{title}: {100 * test.difference:+.2f} points on average, 95 % interval {100 * test.low:+.2f} to "
            f"{100 * test.high:+.2f}, p = {test.p_value:.2g} (paired by image)"
            for title, test in found.items()
            if test is not None
        ]

    def __str__(self) -> str:
        """The table, for a terminal; passes are forward passes per image at test time."""
        rows = [[row.label, *row.cells, str(row.passes)] for row in self.rows()]
        if not rows:
            return "Nothing was measured: no task has evaluation images (Task(evaluation=...))."
        return "\n".join([text_table(["", *self.tasks, "average", "passes"], rows), *self.tests()])
