"""What a run found, in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..cards import Decision, compared, in_order
from ..core.json_files import plain, write_json
from ..core.tables import text_table


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
class Overall:
    """Kept specialists against experts, averaged over tasks, paired by image.

    Args:
        difference: Difference of the average accuracies.
        low, high: Its 95 % interval.
        p_value: Its two-sided p-value.
    """

    difference: float
    low: float
    high: float
    p_value: float

    def __str__(self) -> str:
        points = [100 * value for value in (self.difference, self.low, self.high)]
        return (
            "Specialists over experts: {:+.2f} points on average, 95 % interval {:+.2f} to {:+.2f}, p = {:.2g} "
            "(paired by image)".format(*points, self.p_value)
        )


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
class Report:
    """Figures of a run; `to_dict()` is `results.json`.

    Args:
        tasks: Names of the tasks.
        accuracy: Accuracy by model and task, 0 to 1.
        average: Average accuracy by model, where a model has all tasks that were measured.
        comparison: Specialist against expert, by task.
        overall: Kept specialists against experts; `None` where there are none.
        gate: The gate's decision by task.
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
    overall: Overall | None = None
    gate: Mapping[str, Decision] = field(default_factory=dict)
    coefficients: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    history: History = History()
    timing_s: Mapping[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    pool: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """`results.json`: every key is there, whatever was measured."""
        history = {"meta": plain(self.history.meta), "specialists": plain(self.history.specialists)}
        fields = {name: plain(value) for name, value in vars(self).items() if name != "history"}
        return {"schema": SCHEMA, **fields, "history": history}

    def save(self, path: str | Path) -> None:
        """Write `results.json`."""
        write_json(Path(path), self.to_dict())

    def rows(self) -> list[tuple[str, list[str]]]:
        """Lines of the table: a model's label, its accuracy in percent for each task and on average."""
        lines = []
        for name in in_order(name for name, row in self.accuracy.items() if row):
            row = [*(self.accuracy[name].get(task) for task in self.tasks), self.average.get(name)]
            lines.append((compared(name).label, ["-" if value is None else f"{100 * value:.1f}" for value in row]))
        return lines

    def __str__(self) -> str:
        """The table, for a terminal."""
        rows = [[name, *cells] for name, cells in self.rows()]
        if not rows:
            return "Nothing was measured: no task has evaluation images."
        table = text_table(["", *self.tasks, "average"], rows)
        return table if self.overall is None else f"{table}\n{self.overall}"
