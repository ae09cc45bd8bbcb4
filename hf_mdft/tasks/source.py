"""Opening the data set of a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datasets

from ..core.errors import InputError, suggest


def open_dataset(spec: Any, where: str) -> datasets.Dataset:
    """A `datasets.Dataset` as it is, or loaded from keyword arguments of `load_dataset`.

    Raises:
        InputError: It cannot be loaded, is streamed, or has several splits.
    """
    if isinstance(spec, Mapping) and not isinstance(spec, datasets.DatasetDict):
        try:
            spec = datasets.load_dataset(**spec)
        except Exception as error:  # the loaders of `datasets` raise whatever their readers raise
            reason = str(error.__cause__ or error).strip().splitlines()
            raise InputError(
                f"{where}: cannot load {_short(spec)}: {reason[0] if reason else type(error).__name__}"
            ) from error
    if isinstance(spec, datasets.DatasetDict):
        raise InputError(f"{where}: the dataset has splits {', '.join(spec)}; name one with 'split'")
    if not isinstance(spec, datasets.Dataset):
        raise InputError(
            f"{where}: expected a datasets.Dataset or arguments of load_dataset, got {type(spec).__name__}"
        )
    if len(spec) == 0:
        raise InputError(f"{where}: the dataset has no rows")
    return spec


def check_column(dataset: datasets.Dataset, column: str, setting: str, where: str) -> None:
    """Raises:
    InputError: The dataset has no such column.
    """
    if column not in dataset.column_names:
        raise InputError(f"{where}: no column '{column}' ({setting}): {suggest(column, dataset.column_names)}")


def _short(spec: Mapping[str, Any]) -> str:
    shown = ("path", "name", "data_dir", "data_files", "split", "revision")  # no token
    return ", ".join(f"{key}={spec[key]}" for key in shown if spec.get(key) is not None)
