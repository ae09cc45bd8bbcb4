"""Tables of the study."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.tables import markdown_table
from .study import TeacherRow


CHOSEN = "chosen on the other tasks"


def as_markdown(rows: Sequence[TeacherRow]) -> dict[str, str]:
    """A table for every choice: accuracy in percent by recipe and of all tasks, difference and interval in points."""
    found = {}
    for choice in dict.fromkeys(row.choice for row in rows):
        own = [row for row in rows if row.choice == choice]
        names = list(dict.fromkeys(key.split("/")[0] for key in own[0].by_task))
        lines = []
        for row in own:
            value = CHOSEN if row.value is None else f"**{row.value}**" if row.present else row.value
            cells = [value, *(f"{100 * _mean(row, name):.1f}" for name in names), f"{100 * row.average:.2f}"]
            if row.present:
                cells += ["", "", ""]
            else:
                interval = f"{100 * row.low:+.2f} to {100 * row.high:+.2f}"
                cells += [f"{100 * row.difference:+.2f}", interval, f"{row.p_value:.2g}"]
            lines.append(cells)
        found[choice] = markdown_table((choice, *names, "all tasks", "difference", "95 % interval", "p"), lines)
    return found


def _mean(row: TeacherRow, name: str) -> float:
    own = [accuracy for key, accuracy in row.by_task.items() if key.split("/")[0] == name]
    return sum(own) / len(own)
