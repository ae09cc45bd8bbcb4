"""A model's weight files."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path

from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME

from ..core.errors import InputError
from .layout import advice


WHOLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"


class NoSafetensors(InputError):
    """A model without safetensors weights."""


def weight_names(
    folder: Path, available: Iterable[str], where: str, given: str | None = None, adapters: bool = False
) -> list[str]:
    """Names of a model's safetensors files, in order.

    Args:
        folder: Holds the index, where the weights are sharded.
        available: Names of the files that the model has.
        where: Names the model in messages.
        given: As the user names it, for commands in messages; the default is `where`.
        adapters: Whether it may be a PEFT adapter.

    Raises:
        InputError: A shard is missing; `NoSafetensors` where there are none. Other formats are never read here: they
            can run code.
    """
    available = set(available)
    if INDEX_FILE in available and WHOLE_FILE not in available:  # of both, transformers reads the one file
        return shards(folder, INDEX_FILE, available, where)
    if adapters and CONFIG_NAME in available and SAFETENSORS_WEIGHTS_NAME in available:
        if WHOLE_FILE in available:
            raise InputError(f"{where}: holds a model and an adapter; which of them is meant? Keep one of the two")
        return [SAFETENSORS_WEIGHTS_NAME]
    if WHOLE_FILE not in available:
        raise NoSafetensors(f"{where}: {advice(available, given or where)}")
    return [WHOLE_FILE]


def shards(folder: Path, index: str, available: Collection[str], where: str) -> list[str]:
    """Names of the files that an index of sharded weights names, in order.

    Raises:
        InputError: The index is damaged, or a shard is missing.
    """
    try:
        names = sorted(set(json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{where}: {index} is damaged; take another revision") from error
    for name in names:
        if name not in available:
            raise InputError(f"{where}: shard '{name}' of {index} is missing; take another revision")
    return names
