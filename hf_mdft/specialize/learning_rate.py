"""The learning rate of a student, from how far its expert was fine-tuned."""

from __future__ import annotations

from collections.abc import Collection

from ..pool import ModelPool


GENTLE, FASTEST = 0.15, 2e-4
"""Learning rate over the size of the task vector, and its upper bound. Strong experts forget at higher rates (experts
of 1,500 labels, Fashion-MNIST: -1.4 points at 5e-4, 0.0 at 2e-4, +0.2 at 1e-4, and -4.8 against -0.1 with 64 images),
weak ones gain little by them (256 labels, characters: +9.2, +8.0, +7.0; signs: +1.5, +1.9, +2.2). At twice the rate in
half as many steps, B's specialists have 0.4 points less (docs/defaults.md)."""

USUAL = 1e-5
"""Learning rate where the expert equals the base, so that its task vector has no size: usual for fine-tuning."""


def gentle_learning_rate(pool: ModelPool, task: str, experts: Collection[str] = ()) -> float:
    """In proportion to the root mean square of the task's experts' task vectors (of all, for a task without one).

    Args:
        pool: Base and experts.
        task: Name of the task.
        experts: Names of those of its experts that are learned from; the default is all.
    """
    squares, count = 0.0, 0
    for expert in experts or pool.experts_of(task) or pool.experts:
        for name, tensor in pool.weights(expert).parameters():
            squares += (tensor - pool.weights(None).tensor(name)).double().square().sum().item()
            count += tensor.numel()
    return min(GENTLE * (squares / count) ** 0.5, FASTEST) or USUAL
