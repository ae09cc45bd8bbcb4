"""The learning rate of a student, from how far its expert was fine-tuned."""

from __future__ import annotations

from collections.abc import Collection

from ..pool import ModelPool


GENTLE, FASTEST = 0.3, 4e-4
"""Learning rate over the size of the task vector, and its upper bound, for batches of 32. Twice that in half as many
steps is better for weak experts and worse for strong ones; half of it in twice as many steps, of 64 images, comes to
the same at four times the cost (docs/defaults.md)."""

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
