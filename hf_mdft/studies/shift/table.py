"""The study as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...cards import compared
from ...core.tables import markdown_table
from ..ablation import Row
from .result import Condition, ShiftStudy


def order(study: ShiftStudy) -> list[str]:
    """Names of the models in the order of every table."""
    return ["expert", "expert_views", *study.baselines, "meta", "specialist_ungated", "specialist", "specialist_views"]


def as_tables(study: ShiftStudy) -> dict[str, str]:
    """Tables in Markdown by title: averages of all conditions, the specialists' lead, then each condition by task.

    Accuracy is in percent, differences and intervals are in points.
    """
    moved = any(condition.severity for condition in study.conditions)
    tables = {"Average accuracy on the images adapted to": _averages(study, lambda c: c.shifted)}
    if moved:
        tables["Average accuracy of the same models on clean test images"] = _averages(study, lambda c: c.clean)
    tables["Specialists over other models, on average"] = _leads(study, moved)
    for condition in study.conditions:
        tables[condition.title] = _by_task(study, condition)
    return tables


def _averages(study: ShiftStudy, rows: Callable[[Condition], Mapping[str, Row]]) -> str:
    lines = [
        [compared(name).label, *(f"{100 * rows(condition)[name].average:.1f}" for condition in study.conditions)]
        for name in order(study)
    ]
    return markdown_table(("", *(condition.title for condition in study.conditions)), lines)


def _leads(study: ShiftStudy, moved: bool) -> str:
    lines = []
    for condition in study.conditions:
        for lead, clean in zip(condition.leads, condition.clean_leads, strict=True):
            cells = [condition.title, compared(lead.over).label]
            for found in (lead, clean) if moved else (lead,):
                interval = f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
                cells += [f"{100 * found.difference:+.2f}", interval, f"{found.p_value:.2g}"]
            lines.append(cells)
    header = ("images", "over", "difference", "95 % interval", "p")
    return markdown_table((*header, "on clean images", "95 % interval", "p") if moved else header, lines)


def _by_task(study: ShiftStudy, condition: Condition) -> str:
    header = ["", *study.tasks, "average"]
    header += ["average over classes"] if study.long_tail else []
    header += ["on clean images", "there over the experts"] if condition.severity else []
    lines = []
    for name in order(study):
        row, clean = condition.shifted[name], condition.clean[name]
        cells = [
            compared(name).label,
            *(f"{100 * row.by_task[task]:.1f}" for task in study.tasks),
            f"{100 * row.average:.1f}",
        ]
        cells += [f"{100 * condition.balanced[name]:.1f}"] if study.long_tail else []
        cells += [f"{100 * clean.average:.1f}", f"{100 * clean.difference:+.2f}"] if condition.severity else []
        lines.append(cells)
    return markdown_table(header, lines)
