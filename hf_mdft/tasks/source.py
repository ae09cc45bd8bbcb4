"""Opening the data set of a task."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from ..core.class_names import SPLITS
from ..core.errors import InputError, suggest
from .decode import FORMATS
from .listed import listed


logger = logging.getLogger(__name__)

ARCHIVES, TABLES = (
    frozenset({".zip", ".tar", ".gz"}),
    frozenset({".parquet", ".csv", ".tsv", ".json", ".jsonl", ".arrow"}),
)
"""Endings of archives, and of files that `datasets` reads as tables."""

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
    return _with_files(dataset.select_columns([column]), column, spec, where)


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
    elif isinstance(spec, list | tuple | np.ndarray | datasets.arrow_dataset.Column):
        spec = listed(spec, column, where)
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
    given, spec = spec, _as_meant(dict(spec), where)
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
            f"{where}: cannot load {_short(given)}: {reason[0] if reason else type(error).__name__}"
        ) from error


def _read(stream: datasets.IterableDataset, count: int) -> datasets.Dataset:
    """The first rows of a stream, images as they are stored."""
    features = stream.features
    for name in [name for name, feature in (features or {}).items() if isinstance(feature, datasets.Image)]:
        stream = stream.cast_column(name, datasets.Image(decode=False))
    return datasets.Dataset.from_list(list(stream.take(count)), features=stream.features)


def _as_meant(spec: dict[str, Any], where: str) -> dict[str, Any]:
    """Arguments of `load_dataset` that read all files of a local folder, and files whose names are no patterns.

    `datasets` divides a folder of images by words such as `train` in names of folders, archives and files, and drops
    what has none. Here names of files do not count.
    """
    folder = spec.get("data_dir") if spec.get("path") == "imagefolder" else spec.get("path")
    if folder is not None and "data_files" not in spec and _holds_images(Path(folder)):
        root = Path(folder)
        words = [path for path in _folders(root) if _is_part(path.name)]
        beside = [path for path in words for other in path.parent.iterdir() if _is_no_part(other)]
        if beside:
            raise InputError(
                f"{where}: {beside[0]}: is it a class or a part of the data set? There are other folders beside it; "
                "rename it, or give data_files"
            )
        if not words and not any(_is_part(path.stem) for path in root.glob("*") if path.suffix in ARCHIVES):
            given = {key: value for key, value in spec.items() if key not in ("path", "data_dir")}
            return {
                "path": "imagefolder",
                "data_files": {"train": os.path.join(glob.escape(str(root)), "**")},
                **given,
            }
        return {**spec, "path": "imagefolder", "data_dir": str(root)}
    if "data_files" in spec:
        spec["data_files"] = _each(spec["data_files"], _literal)
    return spec


def _is_part(name: str) -> bool:
    """Whether a folder's name holds a word for a part of a data set, as `datasets` sees it."""
    return bool(SPLITS & set(re.split(r"[^a-z]+", name.lower())))


def _is_no_part(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith((".", "__")) and not _is_part(path.name)


def _folders(root: Path) -> list[Path]:
    return [Path(here) / name for here, names, _ in os.walk(root, followlinks=True) for name in names]


def _holds_images(folder: Path) -> bool:
    """Whether a local folder holds images (or archives of them), and no tables that `datasets` would read."""
    if not folder.is_dir():
        return False
    endings = {Path(name).suffix.lower() for _, _, names in os.walk(folder, followlinks=True) for name in names}
    return not endings & TABLES and bool(endings & (_endings() | ARCHIVES))


def _literal(name: Any) -> Any:
    """A pattern for a file whose name holds brackets."""
    is_file = isinstance(name, str) and glob.has_magic(name) and os.path.exists(name)
    return glob.escape(name) if is_file else name


def _each(value: Any, function: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _each(item, function) for key, item in value.items()}
    return [_each(item, function) for item in value] if isinstance(value, list | tuple) else function(value)


@cache
def _endings() -> frozenset[str]:
    """Endings of files that are pictures."""
    Image.init()
    return frozenset({ending for ending, kind in Image.EXTENSION.items() if kind in FORMATS} | {".mpo"})


def _folder(path: Path, column: str, where: str) -> datasets.Dataset:
    """All images in a folder and the folders in it, in the order of their names; hidden files are none."""
    path = path.expanduser()
    if not path.is_dir():
        raise InputError(f"{where}: {path}: no such folder of images")
    found, other = [], []
    for here, folders, names in os.walk(path, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in sorted(name for name in names if not name.startswith(".")):
            (found if Path(name).suffix.lower() in _endings() else other).append(os.path.join(here, name))
    if not found:
        raise InputError(f"{where}: {path}: no images in this folder")
    if other:
        logger.warning(
            "%s: %d files in %s are no pictures that can be read (%s, ...)", where, len(other), path, other[0]
        )
    return datasets.Dataset.from_dict({column: sorted(found)}).cast_column(column, datasets.Image(decode=False))


def _with_files(dataset: datasets.Dataset, column: str, spec: Any, where: str) -> datasets.Dataset:
    """Paths in a column, which are relative to the file that they are written in."""
    feature, files = dataset.features[column], spec.get("data_files") if isinstance(spec, Mapping) else None
    is_text = isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")
    if files is None or not (is_text or isinstance(feature, datasets.Image)):
        return dataset
    values = dataset.cast_column(column, datasets.Image(decode=False)).data.column(column).to_pylist()
    relative = [v for v in values if v and v["bytes"] is None and v["path"] and not _is_whole(v["path"])]
    if not relative:
        return dataset
    names = [found for name in _flat(files) if "://" not in name for found in (glob.glob(name) or [name])]
    folders = {os.path.dirname(os.path.abspath(name)) for name in names}
    if len(folders) != 1:
        raise InputError(
            f"{where}: '{relative[0]['path']}' is relative to one of several folders; give whole paths, or one file"
        )
    for value in relative:
        value["path"] = os.path.join(*folders, value["path"])
    return datasets.Dataset.from_dict(
        {column: values}, features=datasets.Features({column: datasets.Image(decode=False)})
    )


def _is_whole(path: str) -> bool:
    return "://" in path or os.path.isabs(path)


def _flat(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [name for item in value.values() for name in _flat(item)]
    if isinstance(value, list | tuple):
        return [name for item in value for name in _flat(item)]
    return [] if value is None else [str(value)]


def _short(spec: Mapping[str, Any]) -> str:
    shown = ("path", "name", "data_dir", "data_files", "split", "revision")  # no token
    return ", ".join(f"{key}={spec[key]}" for key in shown if spec.get(key) is not None)
