"""Parts of a data set, by what `split` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datasets

from ..core.errors import InputError


def part_of(parts: Mapping[str, datasets.Dataset], split: Any, where: str) -> datasets.Dataset:
    """The rows that a split stands for, as in `load_dataset`: `train`, `train[:100]`, `train+test`, `all`.

    Args:
        parts: Data sets by the name of the part.
        split: The split.
        where: Names the data set in messages.

    Raises:
        InputError: There is no such part.
    """
    if str(split) == "all":
        return datasets.concatenate_datasets(list(parts.values()))
    try:
        instruction = split
        if not isinstance(split, datasets.ReadInstruction):
            instruction = datasets.ReadInstruction.from_spec(str(split))
        rows = instruction.to_absolute({name: len(part) for name, part in parts.items()})
    except (ValueError, AssertionError) as error:
        raise InputError(f"{where}: split: {str(error).splitlines()[0]}") from error
    return datasets.concatenate_datasets([parts[r.splitname].select(range(r.from_, r.to)) for r in rows])
