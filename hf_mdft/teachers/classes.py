"""The classes of a task among those of another classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..core.class_names import plain_name
from ..core.errors import InputError


def columns_of(wanted: Sequence[str], own: Sequence[str], where: str) -> list[list[int]]:
    """Columns of a classifier for every class of a task: all whose whole name is the class's, else all that have it
    among their names between commas (as ImageNet's have them). Where both list the same names in the same order, each
    class has its own.

    Args:
        wanted: Class names of the task.
        own: Class names of the classifier.
        where: Names the classifier and the task in messages.

    Raises:
        InputError: It lacks a class, or two classes of the task would share one; the message names it.
    """
    if list(wanted) == list(own):
        return [[column] for column in range(len(own))]
    whole, parts = [plain_name(name) for name in own], [_parts(name) for name in own]
    found = []
    for name in wanted:
        exact = [column for column, other in enumerate(own) if other == name]
        alike = exact or [column for column, other in enumerate(whole) if other == plain_name(name)]
        found.append(alike or [column for column, others in enumerate(parts) if plain_name(name) in others])
    missing = [name for name, columns in zip(wanted, found, strict=True) if not columns]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"{where}: it has no class {', '.join(map(repr, missing[:3]))}{more}, and a teacher needs all classes of "
            f"its task (its own: {', '.join(map(str, own[:4]))}{', ...' if len(own) > 4 else ''})"
        )
    taken: dict[int, str] = {}
    for name, columns in zip(wanted, found, strict=True):
        for column in columns:
            if column in taken:
                raise InputError(
                    f"{where}: its class '{own[column]}' stands for both '{taken[column]}' and '{name}', so it cannot "
                    "tell them apart"
                )
            taken[column] = name
    return found


def _parts(name: str) -> set[str]:
    return set(map(plain_name, str(name).split(",")))


def among(logits: torch.Tensor, columns: Sequence[Sequence[int]]) -> torch.Tensor:
    """Log-probabilities `(N, C)` of a task's classes, given that it is one of them.

    Args:
        logits: Logits of the classifier, `(N, classes)`.
        columns: Columns of every class of the task.
    """
    known = [logits[:, list(found)].logsumexp(dim=-1) for found in columns]
    return torch.stack(known, dim=-1).log_softmax(dim=-1)
