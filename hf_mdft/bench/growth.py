"""How costs grow with experts, tasks, images and classes: one of them at a time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..core.cache import cache_root
from ..core.scratch import scratch
from .apart import apart
from .setting import Setting
from .whole_run import WholeRun, run_by_stage


STEPS = 8
"""Steps of either phase."""


@dataclass(frozen=True)
class Series:
    """Values of one quantity, while the others are fixed.

    Args:
        quantity: Name of a field of `Setting`.
        values: Its values.
        large: More of them, for those who have the time.
        fixed: The others.
    """

    quantity: str
    values: tuple[int, ...]
    large: tuple[int, ...]
    fixed: dict[str, int]

    def others(self) -> list[str]:
        """Names of the quantities that are fixed."""
        return [name for name in ("experts", "tasks", "images", "classes") if name != self.quantity]

    def settings(self, setting: Setting, large: bool) -> list[Setting]:
        """What is measured, in order.

        Args:
            setting: Size, precision and batch size.
            large: Whether to take the larger values.
        """
        values = self.large if large else self.values
        fixed = self.fixed | ({"experts": max(values)} if self.quantity == "tasks" else {})
        common = {"max_steps": STEPS, "specialists": 1}
        return [replace(setting, **{**fixed, **common, self.quantity: value}) for value in values]


SERIES = (
    Series("experts", (8, 20, 40), (8, 40, 200), {"tasks": 2, "images": 500, "classes": 10}),
    Series("tasks", (8, 20, 40), (8, 40, 100), {"images": 200, "classes": 10}),
    Series("images", (1000, 4000, 16000), (1000, 10_000, 100_000), {"experts": 2, "tasks": 1, "classes": 10}),
    Series("classes", (10, 50, 200), (10, 100, 1000), {"experts": 2, "tasks": 1, "images": 2000}),
)


@dataclass
class Point:
    """What was measured with one value.

    Args:
        cold: With an empty cache.
        warm: Once more, in a new process that finds everything in the cache, without specialists.
    """

    cold: WholeRun
    warm: WholeRun


COSTS: dict[str, Callable[[Point], float | None]] = {
    "preparation, s": lambda point: point.cold.preparation_s,
    "start-up, s": lambda point: point.warm.preparation_s,
    "step of phase 1, s": lambda point: point.cold.meta.step_s,
    "heads alone, s": lambda point: point.cold.meta.after_s,
    "a specialist's evidence, s": lambda point: point.cold.specialists[0].before_s,
    "all experts on the other tasks' images, s": lambda point: point.cold.strangers_s,
    "a specialist's gate, s": lambda point: point.cold.specialists[0].after_s,
    "step of a specialist, s": lambda point: point.cold.specialists[0].step_s,
    "peak memory, MiB": lambda point: point.cold.peak_bytes and point.cold.peak_bytes / 2**20,
    "cache on disk, MiB": lambda point: point.cold.disk_bytes / 2**20,
}
"""What grows: name and unit, and its figure."""


def measure_growth(
    setting: Setting, large: bool, prepare: Callable[[], None], tell: Callable[[str], None]
) -> Iterator[tuple[Series, list[Point]]]:
    """All `SERIES`, every run in a process of its own.

    Args:
        setting: Size, precision and batch size.
        large: Whether to take the larger values.
        prepare: Function that sets each process up; called first.
        tell: Function that is told what is measured next.
    """
    for series in SERIES:
        points = []
        for chosen in series.settings(setting, large):
            what = f"{series.quantity}: {getattr(chosen, series.quantity)}"
            tell(what)
            with scratch(cache_root()) as folder:
                again = replace(chosen, specialists=0, max_steps=1)
                cold = apart(prepare, what, run_by_stage, chosen, folder)
                warm = apart(prepare, what, run_by_stage, again, folder, "again")
            points.append(Point(cold, warm))
        yield series, points


def exponent(values: list[int], costs: list[float]) -> float | None:
    """Slope of the line through `log(cost)` over `log(value)` (least squares): 0 is flat, 1 linear; `None` where a
    cost is not above 0."""
    if min(costs) <= 0:
        return None
    return statistics.linear_regression([math.log(v) for v in values], [math.log(c) for c in costs]).slope
