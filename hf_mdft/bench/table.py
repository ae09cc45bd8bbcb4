"""What was measured, as a table."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from ..core.tables import markdown_table


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
        rows.append([cost.name, f"{cost.lower_bound_s:.2f} s", f"{cost.step_s:.2f} s", f"{cost.ratio:.2f}", peak])
    return f"{markdown_table(('', 'lower bound', 'step', 'ratio', 'peak memory'), rows)}\n\n{machine()}"


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
