"""What the study found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...evaluation import average_p_value, paired_interval
from ..ablation import Row
from ..outcome import Outcome, average


@dataclass(frozen=True)
class Lead:
    """How far the specialists are from another model on the same images, paired by image.

    Args:
        over: The other model.
        difference: Difference of the average accuracies, 0 to 1.
        low, high: Its 95 % interval.
        p_value: Its two-sided p-value.
        by_task: Difference by task.
    """

    over: str
    difference: float
    low: float
    high: float
    p_value: float
    by_task: dict[str, float]

    @classmethod
    def measure(cls, over: str, ours: Outcome, theirs: Outcome) -> Lead:
        by_task = {task: (ours[task].float().mean() - theirs[task].float().mean()).item() for task in ours}
        return cls(over, *paired_interval(ours, theirs), average_p_value(ours, theirs), by_task)


@dataclass(frozen=True)
class Condition:
    """Models adapted to the images of one target at one severity.

    Args:
        shift: The target; `as-is` at severity 0.
        severity: Its severity.
        shifted: Models on the shifted test images, by name, each compared with the experts.
        clean: The same models on the clean test images.
        balanced: Accuracy averaged over classes, then tasks, on the shifted test images. It equals `shifted` where
            every class has as many test images.
        leads: Specialists over experts, over experts with nine views, and over the baseline that is best on average
            (chosen with labels, in its favor), on the shifted test images.
        clean_leads: The same on the clean ones.
        gate: The gate's decision by task.
    """

    shift: str
    severity: int
    shifted: dict[str, Row]
    clean: dict[str, Row]
    balanced: dict[str, float]
    leads: list[Lead]
    clean_leads: list[Lead]
    gate: dict[str, dict[str, Any]]

    @property
    def title(self) -> str:
        return f"{self.shift}, severity {self.severity}" if self.severity else self.shift

    @classmethod
    def of(
        cls,
        shift: str,
        severity: int,
        found: Mapping[str, Mapping[str, Outcome]],
        labels: Mapping[str, torch.Tensor],
        baselines: tuple[str, ...],
        gate: dict[str, dict[str, Any]],
    ) -> Condition:
        """Compare models.

        Args:
            shift, severity, gate: As above.
            found: What each model classifies correctly, by model, then `shifted` (where that is not the same) and
                `clean`.
            labels: Labels of the test images, by task.
            baselines: Those models that are baselines.
        """
        found = {name: {"shifted": by["clean"], **by} for name, by in found.items()}
        rows = {
            images: {name: Row.compare(name, by[images], found["expert"][images]) for name, by in found.items()}
            for images in ("shifted", "clean")
        }
        best = [max(baselines, key=lambda name: average(found[name]["shifted"]))] if baselines else []
        leads, clean_leads = (
            [
                Lead.measure(name, found["specialist"][images], found[name][images])
                for name in ("expert", "expert_views", *best)
            ]
            for images in ("shifted", "clean")
        )
        balanced = {name: _balanced(by["shifted"], labels) for name, by in found.items()}
        return cls(shift, severity, rows["shifted"], rows["clean"], balanced, leads, clean_leads, gate)


def _balanced(found: Outcome, labels: Mapping[str, torch.Tensor]) -> float:
    """Mean over tasks of the mean over classes."""
    tasks = []
    for task, correct in found.items():
        share = [correct[labels[task] == label].float().mean() for label in labels[task].unique()]
        tasks.append(torch.stack(share).mean().item())
    return sum(tasks) / len(tasks)


@dataclass(frozen=True)
class ShiftStudy:
    """The whole study.

    Args:
        tasks: Tasks that were measured.
        baselines: Baselines that were measured.
        long_tail: Sizes of the classes of the unlabelled images, largest first, by task; `None`: as they are.
        conditions: What was found, in order.
    """

    tasks: list[str]
    baselines: list[str]
    long_tail: dict[str, list[int]] | None
    conditions: list[Condition]
