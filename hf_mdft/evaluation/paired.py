"""Is a difference between two models more than noise?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch


MOST_SUMS = 100_000
"""Values that an exact test's sum may have: with tasks of different sizes they multiply. Where they are more, steps
between them are so small that a normal distribution is as good."""


def mcnemar(correct_a: torch.Tensor, correct_b: torch.Tensor) -> float:
    """Two-sided p-value of McNemar's exact test on paired outcomes `(N,)` of two models on the same images.

    Only images on which one model is right and the other wrong tell them apart; under the null hypothesis each such
    image falls either way with probability 1/2.
    """
    b = int((correct_a & ~correct_b).sum())
    c = int((~correct_a & correct_b).sum())
    n, k = b + c, min(b, c)
    return float(min(1.0, 2 * _chances(n)[: k + 1].sum()))


def _chances(count: int) -> np.ndarray:
    """Chance of each number, from 0 to `count`, of so many that each come about with probability 1/2."""
    log = np.array([math.lgamma(number + 1) for number in range(count + 1)])
    return np.exp(log[-1] - log - log[::-1] - count * math.log(2))


def paired_interval(
    correct_a: Mapping[str, torch.Tensor],
    correct_b: Mapping[str, torch.Tensor],
    share: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Difference of two models' average accuracy over tasks, a minus b, with a bootstrap interval.

    Images are drawn with replacement within each task, for both models the same ones.

    Args:
        correct_a, correct_b: Paired outcomes `(N,)` by task.
        share: Probability that the interval covers.
        draws: Number of bootstrap draws.
        seed: Seed of the draws.

    Returns:
        Difference, lower and upper end, 0 to 1.
    """
    rng = np.random.default_rng(seed)
    means, drawn = [], np.zeros(draws)
    for task in sorted(correct_a):  # whatever the order in which they come
        difference = correct_a[task].numpy().astype(np.int8) - correct_b[task].numpy().astype(np.int8)
        # Drawing N images with replacement is drawing how many are gained, lost and unchanged.
        count = len(difference)
        gained, lost = (difference > 0).mean(), (difference < 0).mean()
        draw = rng.multinomial(count, [gained, lost, max(0.0, 1 - gained - lost)], size=draws)
        drawn += (draw[:, 0] - draw[:, 1]) / count / len(correct_a)
        means.append(difference.mean())
    low, high = np.quantile(drawn, [(1 - share) / 2, (1 + share) / 2])
    return float(np.mean(means)), float(low), float(high)


def average_p_value(correct_a: Mapping[str, torch.Tensor], correct_b: Mapping[str, torch.Tensor]) -> float:
    """Two-sided p-value of the difference between two models' average accuracy over tasks.

    The difference is the mean over tasks of paired differences. Under the null hypothesis each image that tells the
    two apart falls either way with probability 1/2, as in `mcnemar`, which this is for one task. The distribution is
    exact where the sum has few values, so for tasks of one size; else it is normal, with the same variance.
    """
    differences = {task: a.double() - correct_b[task].double() for task, a in correct_a.items()}
    told: dict[int, int] = {}  # by size: tasks of one size are as one
    for difference in differences.values():
        told[len(difference)] = told.get(len(difference), 0) + int(difference.abs().sum())
    if math.prod(count + 1 for count in told.values()) <= MOST_SUMS:
        return _exact_p_value(told, sum(difference.mean().item() for difference in differences.values()))
    mean, variance = 0.0, 0.0
    for difference in differences.values():
        mean += difference.mean().item() / len(correct_a)
        variance += difference.square().mean().item() / len(difference) / len(correct_a) ** 2
    return math.erfc(abs(mean) / math.sqrt(2 * variance))


def _exact_p_value(told: Mapping[int, int], observed: float) -> float:
    """Two-sided p-value of a sum of mean differences, by their distribution where all signs are by chance.

    Args:
        told: How many images tell the models apart, by the size of their tasks.
        observed: The sum.
    """
    values, chances = np.zeros(1), np.ones(1)
    for size, count in told.items():
        gained = np.arange(count + 1)
        values = np.add.outer(values, (2 * gained - count) / size).ravel()
        chances = np.multiply.outer(chances, _chances(count)).ravel()
        values, place = np.unique(values.round(12), return_inverse=True)
        chances = np.bincount(place.ravel(), chances)
    return float(min(1.0, chances[np.abs(values) >= abs(observed) - 1e-9].sum()))
