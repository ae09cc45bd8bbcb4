"""Outcomes of one choice compared: with the present value, and with what the other tasks would choose."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from ..outcome import Outcome


def task_of(key: str) -> str:
    """Name of the task of an outcome's key, `"RECIPE/TASK"` with or without more behind."""
    return key.split("/")[1]


def chosen_elsewhere(found: Mapping[str, Outcome], present: str | None = None) -> Outcome:
    """For every task, the outcome with that value which is best, on average, on the tasks of other names: the same
    data set in another pool is no other task.

    Args:
        found: Outcomes by value.
        present: The value that is taken where it is as good as any; the default is the first.
    """
    values = sorted(found, key=lambda value: value != present)

    def elsewhere(own: Outcome, task: str) -> float:
        return sum(correct.double().mean().item() for key, correct in own.items() if task_of(key) != task)

    kept = {}
    for key in next(iter(found.values())):
        best = max(values, key=lambda value: elsewhere(found[value], task_of(key)))
        kept[key] = found[best][key]
    return kept


def compared(found: Outcome, with_: Outcome) -> tuple[float, float, float, float]:
    """Difference of the mean accuracies, its 95 % interval, and its two-sided p-value, paired by image.

    One data set may be there several times (with several pools, or with an expert more): its images are the same, so
    their differences are averaged over these before their variance is taken.

    Args:
        found: Outcomes by key.
        with_: Those that they are compared with.
    """
    clusters: dict[tuple[str, int], list[torch.Tensor]] = {}
    for key, correct in found.items():
        difference = correct.double() - with_[key].double()
        clusters.setdefault((task_of(key), len(difference)), []).append(difference)
    mean, variance = 0.0, 0.0
    for differences in clusters.values():
        share, by_image = len(differences) / len(found), torch.stack(differences).mean(dim=0)
        mean += share * by_image.mean().item()
        variance += share**2 * by_image.var(unbiased=False).item() / len(by_image)
    error = math.sqrt(variance)
    p_value = math.erfc(abs(mean) / error / math.sqrt(2)) if error else float(mean == 0)
    return mean, mean - 1.96 * error, mean + 1.96 * error, p_value
