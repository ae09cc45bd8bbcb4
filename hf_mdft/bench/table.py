"""What was measured, as tables."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from ..core.tables import markdown_table
from .growth import COSTS, Point, Series, exponent
from .whole_run import WholeRun


@dataclass
class Cost:
    """One line of the table.

    Args:
        name: Name of the measurement.
        lower_bound_s, step_s: Medians, in seconds.
        peak_bytes: Peak anonymous memory of the process (of the accelerator, where there is one) over the whole run,
            pool and expert outputs included, without the lower bound.
    """

    name: str
    lower_bound_s: float
    step_s: float
    peak_bytes: int | None

    @property
    def ratio(self) -> float:
        return self.step_s / self.lower_bound_s


def as_markdown(costs: list[Cost]) -> str:
    """The table, with machine and date."""
    rows = []
    for cost in costs:
        peak = "?" if cost.peak_bytes is None else f"{cost.peak_bytes / 2**30:.2f} GiB"
        rows.append([cost.name, _time(cost.lower_bound_s), _time(cost.step_s), f"{cost.ratio:.2f}", peak])
    return f"{markdown_table(('', 'lower bound', 'step', 'ratio', 'peak memory'), rows)}\n\n{machine()}"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def run_as_markdown(run: WholeRun) -> str:
    """Seconds and share of every stage of a run, and what the whole is of its training passes alone."""
    stages = [*run.stages().items(), ("**whole run**", run.seconds)]
    rows = [[stage, f"{seconds:.2f} s", f"{seconds / run.seconds:.0%}"] for stage, seconds in stages]
    rows.append(["training passes alone", f"{run.passes_s:.2f} s", f"{run.passes_s / run.seconds:.0%}"])
    rows.append(["**whole run / training passes alone**", f"**{run.seconds / run.passes_s:.2f}**", ""])
    peak = "?" if run.peak_bytes is None else f"{run.peak_bytes / 2**30:.2f} GiB"
    setting = run.setting
    what = (
        f"{setting.model}, K = {setting.experts}, {setting.tasks} tasks, N = {setting.images}, {setting.classes} "
        f"classes. Peak memory {peak}; {run.disk_bytes / 2**20:.0f} MiB in the cache."
    )
    return f"{markdown_table(('stage', 'time', 'share'), rows)}\n\n{what}\n{machine()}"


def growth_as_markdown(found: Iterable[tuple[Series, list[Point]]]) -> Iterator[str]:
    """Lines of one table, as soon as they are known: for each quantity every cost at every value, its exponent, and
    how much one more adds."""
    header = ("", "smallest", "middle", "largest", "exponent", "one more adds")
    for number, (series, points) in enumerate(found):
        values = [getattr(point.cold.setting, series.quantity) for point in points]
        fixed = ", ".join(f"{getattr(points[0].cold.setting, name):,} {name}" for name in series.others())
        rows = [[f"**{series.quantity}** ({fixed})", *(f"**{value:,}**" for value in values), "", ""]]
        rows += [_growth_row(name, values, [cost(point) for point in points]) for name, cost in COSTS.items()]
        yield from markdown_table(header, rows).splitlines()[2 if number else 0 :]
    yield f"\n{points[0].cold.setting.model}. {machine()}"


def _growth_row(name: str, values: list[int], costs: list[float | None]) -> list[str]:
    if None in costs:
        return [name, *("?" for _ in values), "?", "?"]
    slope = exponent(values, costs)
    more = (costs[-1] - costs[0]) / (values[-1] - values[0])
    shown = [f"{cost:,.0f}" if cost >= 100 else f"{cost:.3g}" for cost in costs]
    return [name, *shown, "?" if slope is None else f"{slope:.2f}", f"{more:.2g}"]


def machine() -> str:
    """What the figures were measured on, and when."""
    if torch.cuda.is_available():
        where, memory = torch.cuda.get_device_name(), "of the accelerator"
    else:
        where = f"{_processor()}, {torch.get_num_threads()} threads"
        memory = "anonymous, of the process"
    return f"{where}; torch {torch.__version__}; {date.today()}. Peak memory {memory}."


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
