"""The classes of a task among those of another classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..core.errors import InputError
from ..heads import plain_name


def columns_of(wanted: Sequence[str], own: Sequence[str], where: str) -> list[list[int]]:
    """Columns of a classifier for every class of a task: all whose name, or one of whose names between commas (as
    ImageNet's have them), is the class's.

    Args:
        wanted: Class names of the task.
        own: Class names of the classifier.
        where: Names the classifier and the task in messages.

    Raises:
        InputError: It lacks a class; the message names it.
    """
    found = [[n for n, name in enumerate(own) if plain_name(c) in _names(name)] for c in wanted]
    missing = [name for name, columns in zip(wanted, found, strict=True) if not columns]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"{where}: it has no class {', '.join(map(repr, missing[:3]))}{more}, and a teacher needs all classes of "
            f"its task (its own: {', '.join(map(str, own[:4]))}{', ...' if len(own) > 4 else ''})"
        )
    return found


def _names(name: str) -> set[str]:
    return {plain_name(name), *map(plain_name, str(name).split(","))}


def among(logits: torch.Tensor, columns: Sequence[Sequence[int]]) -> torch.Tensor:
    """Log-probabilities `(N, C)` of a task's classes, given that it is one of them.

    Args:
        logits: Logits of the classifier, `(N, classes)`.
        columns: Columns of every class of the task.
    """
    known = [logits[:, list(found)].logsumexp(dim=-1) for found in columns]
    return torch.stack(known, dim=-1).log_softmax(dim=-1)
