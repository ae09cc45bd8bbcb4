"""Opening the data set of a task."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from ..core.class_names import SPLITS
from ..core.errors import InputError, suggest
from .decode import FORMATS


TAKE = "take"
"""Option beside those of `load_dataset`: how many images of a stream are read."""


def open_images(spec: Any, column: str, where: str) -> datasets.Dataset:
    """The images of a task, as one column that is not decoded.

    Args:
        spec: See `open_dataset`.
        column: Name of the column that holds them.
        where: Names the data set in messages.

    Raises:
        InputError: They cannot be loaded, or there is no such column.
    """
    dataset = open_dataset(spec, where, column)
    check_column(dataset, column, "image_column", where)
    return _with_files(dataset.select_columns([column]), column, spec)


def open_dataset(spec: Any, where: str, column: str = "image") -> datasets.Dataset:
    """A data set in memory or on the disk, without formats and transforms that were set on it.

    Args:
        spec: A `datasets.Dataset`; keyword arguments of `load_dataset`, with `take` beside `streaming: true`; a folder
            of images; or a list of paths, pictures or arrays.
        where: Names it in messages.
        column: Name of the column that a list or a folder becomes.

    Raises:
        InputError: It cannot be loaded, is a stream of unknown length, or has several splits.
    """
    if isinstance(spec, str | Path):
        spec = _folder(Path(spec), column, where)
    elif isinstance(spec, Mapping) and not isinstance(spec, datasets.DatasetDict):
        spec = _loaded(dict(spec), where)
    elif isinstance(spec, list | tuple):
        spec = _listed(spec, column, where)
    if isinstance(spec, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise InputError(f"{where}: the dataset has splits {', '.join(spec)}; name one with 'split'")
    if isinstance(spec, datasets.IterableDataset):
        raise InputError(
            f"{where}: a stream, of which it is not known where it ends; say how many images are read: list(stream."
            "take(2000)), or take: 2000 beside streaming: true"
        )
    if not isinstance(spec, datasets.Dataset):
        raise InputError(
            f"{where}: expected a datasets.Dataset, arguments of load_dataset, a folder or a list of images, got "
            f"{type(spec).__name__}"
        )
    if len(spec) == 0:
        raise InputError(f"{where}: the dataset has no rows")
    return spec.with_format(None)


def check_column(dataset: datasets.Dataset, column: str, setting: str, where: str) -> None:
    """Raises:
    InputError: The dataset has no such column.
    """
    if column not in dataset.column_names:
        raise InputError(f"{where}: no column '{column}' ({setting}): {suggest(column, dataset.column_names)}")


def _loaded(spec: dict[str, Any], where: str) -> Any:
    count = spec.pop(TAKE, None)
    if count is not None and (type(count) is not int or count < 1):
        raise InputError(f"{where}: {TAKE} must be a whole number, got {count!r}")
    spec = _as_meant(spec)
    try:
        found = datasets.load_dataset(**spec)
        if count is None:
            return found
        if isinstance(found, datasets.IterableDataset):
            return _read(found, count)
        return found.select(range(min(count, len(found)))) if isinstance(found, datasets.Dataset) else found
    except Exception as error:  # the loaders of `datasets` raise whatever their readers raise
        reason = str(error.__cause__ or error).strip().splitlines()
        raise InputError(
            f"{where}: cannot load {_short(spec)}: {reason[0] if reason else type(error).__name__}"
        ) from error


def _read(stream: datasets.IterableDataset, count: int) -> datasets.Dataset:
    """The first rows of a stream, images as they are stored."""
    features = stream.features
    for name in [name for name, feature in (features or {}).items() if isinstance(feature, datasets.Image)]:
        stream = stream.cast_column(name, datasets.Image(decode=False))
    return datasets.Dataset.from_list(list(stream.take(count)), features=stream.features)


def _as_meant(spec: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `load_dataset` that read all files of a local folder, and files whose names are no patterns."""
    folder = spec.get("data_dir")
    if spec.get("path") == "imagefolder" and folder is not None and "data_files" not in spec and Path(folder).is_dir():
        # `datasets` takes names of parts in names of files for splits, too, and drops all other files.
        inside = {path.name.lower() for path in Path(folder).iterdir() if path.is_dir()}
        if not inside & SPLITS:
            spec.pop("data_dir")
            spec["data_files"] = {spec.get("split") or "train": os.path.join(glob.escape(str(folder)), "**")}
    elif "data_files" in spec:
        spec["data_files"] = _each(spec["data_files"], _literal)
    return spec


def _literal(name: Any) -> Any:
    """A pattern for a file whose name holds brackets."""
    is_file = isinstance(name, str) and glob.has_magic(name) and os.path.exists(name)
    return glob.escape(name) if is_file else name


def _each(value: Any, function: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _each(item, function) for key, item in value.items()}
    return [_each(item, function) for item in value] if isinstance(value, list | tuple) else function(value)


def _folder(path: Path, column: str, where: str) -> datasets.Dataset:
    """All images in a folder and the folders in it, in the order of their names."""
    path = path.expanduser()
    if not path.is_dir():
        raise InputError(f"{where}: {path}: no such folder of images")
    Image.init()
    endings = {ending for ending, kind in Image.EXTENSION.items() if kind in FORMATS}
    files = sorted(str(file) for file in path.rglob("*") if file.suffix.lower() in endings and file.is_file())
    if not files:
        raise InputError(f"{where}: {path}: no images in this folder")
    return datasets.Dataset.from_dict({column: files}).cast_column(column, datasets.Image(decode=False))


def _listed(items: Sequence[Any], column: str, where: str) -> datasets.Dataset:
    if not items:
        raise InputError(f"{where}: the list of images is empty")
    encode = datasets.Image().encode_example
    try:
        for item in items:
            if not isinstance(item, str | Path | bytes | dict | Image.Image | np.ndarray):
                raise TypeError(f"one is a {type(item).__name__}")
        values = [encode(str(item) if isinstance(item, Path) else item) for item in items]
        return datasets.Dataset.from_dict(
            {column: values}, features=datasets.Features({column: datasets.Image(decode=False)})
        )
    except (TypeError, ValueError, NotImplementedError, OverflowError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise InputError(
            f"{where}: a list of {type(items[0]).__name__} makes no images ({reason[:120]}); give paths, pictures of "
            "Pillow or arrays of bytes"
        ) from error


def _with_files(dataset: datasets.Dataset, column: str, spec: Any) -> datasets.Dataset:
    """Paths in a column of text, which are relative to the file that they are written in."""
    feature = dataset.features[column]
    is_text = isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")
    files = spec.get("data_files") if isinstance(spec, Mapping) else None
    if not is_text:
        return dataset
    names = _flat(files)
    folders = {os.path.dirname(os.path.abspath(name)) for name in names if "://" not in str(name)}
    if len(folders) != 1 or len(names) < 1:
        return dataset
    (folder,) = folders

    def absolute(name: str | None) -> str | None:
        return name if name is None or "://" in name or os.path.isabs(name) else os.path.join(folder, name)

    paths = [absolute(name) for name in dataset.data.column(column).to_pylist()]
    return datasets.Dataset.from_dict({column: paths})


def _flat(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [name for item in value.values() for name in _flat(item)]
    if isinstance(value, list | tuple):
        return [name for item in value for name in _flat(item)]
    return [] if value is None else [str(value)]


def _short(spec: Mapping[str, Any]) -> str:
    shown = ("path", "name", "data_dir", "data_files", "split", "revision")  # no token
    return ", ".join(f"{key}={spec[key]}" for key in shown if spec.get(key) is not None)
