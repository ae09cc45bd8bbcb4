"""What a run found, in one object."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..core.tables import text_table


SCHEMA = 1

MODELS = {
    "base": "base",
    "expert": "experts",
    "weight_average": "weight average",
    "task_arithmetic": "task arithmetic",
    "meta": "meta-model",
    "specialist_ungated": "specialists, no gate",
    "specialist": "specialists",
}
"""Models of a report in the order of its table, with the names that people read."""


@dataclass
class Report:
    """Figures of a run; `to_dict()` is `results.json`.

    Args:
        tasks: Names.
        accuracy: By model and task, 0 to 1, and `"average"` over the tasks where a model has all of them.
        comparison: By task: specialist against expert on the same images (`difference`, `p_value`, `images`,
            `transductive`).
        overall: Kept specialists against experts, averaged over tasks: `difference`, 95 % interval (`low`, `high`) and
            `p_value`, paired by image.
        gate: By task.
        coefficients: By tensor and expert, of the meta-model.
        history: Log lines by phase: `"meta"` and each task.
        timing_s: Seconds by stage.
        peak_memory_bytes: Of the process, file-backed pages included.
        pool: Reference with revisions.
        versions: Of Python and packages.
        seed: Of the run.
    """

    tasks: list[str]
    accuracy: dict[str, dict[str, float]] = field(default_factory=dict)
    comparison: dict[str, dict[str, Any]] = field(default_factory=dict)
    overall: dict[str, float] = field(default_factory=dict)
    gate: dict[str, dict[str, Any]] = field(default_factory=dict)
    coefficients: dict[str, dict[str, float]] = field(default_factory=dict)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    timing_s: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    pool: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seed: int = 0

    def add(self, model: str, accuracy: dict[str, float]) -> None:
        """Record a model's accuracy by task; the average is added where it covers every task that was measured."""
        measured = set(self.accuracy.get("base", accuracy)) - {"average"}
        row = dict(accuracy)
        if row and measured <= set(row):
            row["average"] = sum(row.values()) / len(row)
        self.accuracy[model] = row

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}

    def save(self, path: str | Path) -> None:
        """Write `results.json`."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n")

    def rows(self) -> list[tuple[str, list[str]]]:
        """Lines of the table: name of the model, accuracy in percent for each task and on average."""
        names = [name for name in MODELS if self.accuracy.get(name)]
        names += [name for name in self.accuracy if name not in MODELS]
        lines = []
        for name in names:
            row = self.accuracy[name]
            cells = [f"{100 * row[t]:.1f}" if t in row else "-" for t in [*self.tasks, "average"]]
            lines.append((MODELS.get(name, name), cells))
        return lines

    def __str__(self) -> str:
        """The table, for a terminal."""
        rows = [[name, *cells] for name, cells in self.rows()]
        if not rows:
            return "Nothing was measured: no task has evaluation images."
        table = text_table(["", *self.tasks, "average"], rows)
        if not self.overall:
            return table
        points = {name: 100 * value for name, value in self.overall.items()}
        return (
            f"{table}\nSpecialists over experts: {points['difference']:+.2f} points on average, 95 % interval "
            f"{points['low']:+.2f} to {points['high']:+.2f}, p = {self.overall['p_value']:.2g} (paired by image)"
        )
