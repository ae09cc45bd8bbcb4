"""Is a difference between two models more than noise?"""

from __future__ import annotations

import math

import torch


def mcnemar(correct_a: torch.Tensor, correct_b: torch.Tensor) -> float:
    """Two-sided p-value of McNemar's exact test on paired outcomes `(N,)` of two models on the same images.

    Only images on which one model is right and the other wrong tell them apart; under the null hypothesis each such
    image falls either way with probability 1/2.
    """
    b = int((correct_a & ~correct_b).sum())
    c = int((~correct_a & correct_b).sum())
    n, k = b + c, min(b, c)
    if n == 0:
        return 1.0
    log_tail = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(k + 1)
    ]
    return min(1.0, 2 * sum(math.exp(term) for term in log_tail))
