"""How often the gate was right, over the results of many runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import InputError


@dataclass
class GateRecord:
    """Decisions of the gate in a number of (task, run) pairs.

    It is right where it keeps the better one of specialist and expert on the evaluation images; where both are equally
    accurate, either choice is right.

    Args:
        pairs: Number of pairs.
        right: Number of right decisions.
        accepted: Number of kept specialists.
        saved: Points lost without the gate where the expert was kept, summed and divided by `pairs`.
        cost: Points left behind where the expert was kept, divided by `pairs`.
        let_through: Points lost where a worse specialist was kept, divided by `pairs`.
        worst: Largest loss of a kept specialist, in points.
        ungated, gated: Mean points over the experts, of every specialist and of what was kept.
    """

    pairs: int
    right: int
    accepted: int
    saved: float
    cost: float
    let_through: float
    worst: float
    ungated: float
    gated: float


def gate_record(files: Iterable[Path]) -> GateRecord:
    """Read `results.json` files of runs with specialists, and `few-shot.json` files of that study.

    Raises:
        InputError: A file is no such result, or is given twice.
    """
    cases: list[tuple[bool, float, float]] = []  # accepted, difference of the whole specialist and of what was kept
    seen: set[Path] = set()
    for file in files:
        if (place := Path(file).resolve()) in seen:
            raise InputError(f"{file}: given twice, and each run counts once; leave one out")
        seen.add(place)
        try:
            found = json.loads(Path(file).read_text(encoding="utf-8"))
            for report in found if isinstance(found, list) else [found]:
                for task, decision in report["gate"].items():
                    if task in report["comparison"]:
                        accepted, whole = decision["chosen"] == "specialist", report["comparison"][task]["difference"]
                        between = accepted and decision.get("interpolation") is not None
                        kept = _kept_between(report, task, whole) if between else whole
                        cases.append((accepted, 100 * whole, 100 * kept))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}: no results.json of a run ({error})") from error
    if not cases:
        raise InputError("no result compares a specialist with its expert: give results.json of runs with evaluation")
    count = len(cases)
    kept = [difference for accept, _, difference in cases if accept]
    left = [whole for accept, whole, _ in cases if not accept]
    return GateRecord(
        pairs=count,
        right=sum(d >= 0 for d in kept) + sum(d <= 0 for d in left),
        accepted=len(kept),
        saved=sum(max(0.0, -d) for d in left) / count,
        cost=sum(max(0.0, d) for d in left) / count,
        let_through=sum(max(0.0, -d) for d in kept) / count,
        worst=max([0.0, *(-d for d in kept)]),
        ungated=sum(whole for _, whole, _ in cases) / count,
        gated=sum(kept) / count,
    )


def _kept_between(report: dict[str, Any], task: str, whole: float) -> float:
    """Accuracy of the weights between expert and specialist that were kept, minus the expert's.

    Args:
        report: The results of a run, or of the few-shot study.
        task: The task.
        whole: The difference of the whole specialist.
    """
    if "accuracy" in report:
        return report["accuracy"]["specialist"][task] - report["accuracy"]["expert"][task]
    return report["specialist"]["by_task"][task] - report["specialist_ungated"]["by_task"][task] + whole


def as_text(record: GateRecord) -> str:
    """The record in three lines."""
    return (
        f"The gate was right in {record.right} of {record.pairs} cases ({record.right / record.pairs:.0%}); it "
        f"kept {record.accepted} specialists.\nGain over the experts: {record.ungated:+.2f} points without it, "
        f"{record.gated:+.2f} with it (mean over cases).\nIt saved {record.saved:.2f}, left {record.cost:.2f} behind, "
        f"and let {record.let_through:.2f} points of loss through; the worst kept loss is {record.worst:.1f}."
    )
