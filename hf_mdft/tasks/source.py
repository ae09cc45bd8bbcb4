"""Opening the data set of a task."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ..core.errors import InputError, suggest
from ..core.reference import REPO_ID
from .archives import is_archive
from .folders import LABEL, folder_of_images
from .listed import listed
from .meant import KINDS, SAME_PICTURES, as_meant, check_metadata, flat, local_images
from .saved import is_saved, saved
from .task import NO_PATH


logger = logging.getLogger(__name__)

LISTS = (list, tuple, np.ndarray, datasets.arrow_dataset.Column)
"""What is taken as a list of images."""

SPLITS = (datasets.DatasetDict, datasets.IterableDatasetDict)
"""What holds data sets by the names of their splits."""

DELIMITERS = ("\t", ";", "|")
"""What may be between the columns of a table that is read as if it were commas."""

TAKE = "take"
"""Option beside those of `load_dataset`: how many images of a stream are read."""


def open_images(spec: Any, column: str, where: str, opened: datasets.Dataset | None = None) -> datasets.Dataset:
    """The images of a task, as one column that is not decoded.

    Args:
        spec: See `open_dataset`.
        column: Name of the column that holds them.
        where: Names the data set in messages.
        opened: What `open_dataset` made of it, where that was called.

    Raises:
        InputError: They cannot be loaded, or there is no such column.
    """
    dataset = open_dataset(spec, where, column) if opened is None else opened
    check_column(dataset, column, "image_column", where)
    return _with_files(dataset.select_columns([column]), column, spec, where)


def open_dataset(spec: Any, where: str, column: str = "image", known: Collection[str] = ()) -> datasets.Dataset:
    """A data set in memory or on the disk, without formats and transforms that were set on it.

    Args:
        spec: A `datasets.Dataset`; keyword arguments of `load_dataset`, with `take` beside `streaming: true`; a folder
            of images; or a list of paths, pictures or arrays.
        where: Names it in messages.
        column: Name of the column that a list or a folder becomes.
        known: Names that labels may have, where they are known: they tell which folders are classes.

    Raises:
        InputError: It cannot be loaded, is a stream of unknown length, or has several splits.
    """
    if isinstance(spec, str | Path):
        spec = _folder(spec, column, where, known)
    elif isinstance(spec, Mapping) and not isinstance(spec, SPLITS):
        spec = _loaded(dict(spec), where, known)
    elif isinstance(spec, LISTS):
        spec = listed(spec, column, where)
    spec = only_split(spec)
    if isinstance(spec, SPLITS):
        raise InputError(f"{where}: the dataset has splits {', '.join(spec)}; name one with 'split'")
    if isinstance(spec, datasets.IterableDataset):
        raise InputError(
            f"{where}: a stream, of which it is not known where it ends; say how many images are read: datasets."
            "Dataset.from_list(list(stream.take(2000))), or take: 2000 beside streaming: true"
        )
    if spec is None:  # also a meta-model that was loaded, whose images were no ones that a repo can name
        raise InputError(f"{where}: no images are known; give tasks that have some: Task(unlabelled=...)")
    if not isinstance(spec, datasets.Dataset):
        raise InputError(
            f"{where}: expected a datasets.Dataset, arguments of load_dataset, a folder or a list of images, got "
            f"{type(spec).__name__}"
        )
    if len(spec) == 0:
        raise InputError(f"{where}: the dataset has no rows")
    return spec.with_format(None)


def only_split(found: Any) -> Any:
    """The data set where there is a single split, of which no name is needed; else what was given."""
    return next(iter(found.values())) if isinstance(found, SPLITS) and len(found) == 1 else found


def warn_of_dropped(spec: Any, dataset: datasets.Dataset, column: str, where: str) -> None:
    """Say where a transform or a mode that is set on a data set is not applied.

    Args:
        spec: What the task has.
        dataset: What `open_images` made of it.
        column: Name of the column of images.
        where: Names the data set.
    """
    spec = only_split(spec)
    form = spec.format if isinstance(spec, datasets.Dataset) else {"type": None}
    dropped = ["its transform"] if form["type"] == "custom" and column in form["columns"] else []
    mode = getattr(dataset.features[column], "mode", None)
    if mode not in (None, "RGB"):  # what they become anyway
        dropped.append(f"mode '{mode}' of its column")
    if dropped:
        logger.warning(
            "%s: the stored pictures are read as they are, without %s; apply it with .map first, if it is needed",
            where,
            " and ".join(dropped),
        )


def check_column(dataset: datasets.Dataset, column: str, setting: str, where: str) -> None:
    """Raises:
    InputError: The dataset has no such column.
    """
    names = dataset.column_names
    if column in names:
        return
    if len(names) == 1 and (mark := next((mark for mark in DELIMITERS if mark in names[0]), None)):
        raise InputError(
            f"{where}: no column '{column}' ({setting}), but one called {names[0][:60]!r}: what is between columns? "
            f"Say so with delimiter: {mark!r}"
        )
    advice = suggest(column, names)
    if setting == "label_column" and len(names) == 1:
        advice = (
            "there is none beside the pictures: put those of each class into a folder of its own, or, where a "
            "metadata file names their classes, give {path: imagefolder, data_dir: FOLDER, split: train}"
        )
    raise InputError(f"{where}: no column '{column}' ({setting}): {advice}")


def _loaded(spec: dict[str, Any], where: str, known: Collection[str]) -> Any:
    if "path" not in spec:
        raise InputError(f"{where}: {NO_PATH}")
    count = spec.pop(TAKE, None)
    if count is not None and (type(count) is not int or count < 1):
        raise InputError(f"{where}: {TAKE} must be a whole number, got {count!r}")
    if isinstance(spec.get("split"), datasets.NamedSplit):  # `datasets.Split.TRAIN`
        spec["split"] = str(spec["split"])
    for key in ("path", "data_dir", "name", "split"):
        if spec.get(key) is not None and not isinstance(spec[key], str | Path | datasets.ReadInstruction):
            raise InputError(f"{where}: {key} must be text, got {spec[key]!r}")
    place = Path(spec["path"], spec.get("data_dir") or "")
    if is_saved(place) and not (spec.keys() - SAME_PICTURES or spec.get("data_files")):
        found = saved(place, spec.get("split"), where)
    else:
        found = local_images(spec, where, known)
    try:
        if found is None:
            meant = as_meant(dict(spec), where)
            found = datasets.load_dataset(**meant)
            if isinstance(found, SPLITS) and len(found) == 1:
                meant["split"] = next(iter(found))
            found = only_split(found)
            if "data_files" not in spec and meant["path"] == "imagefolder" and isinstance(found, datasets.Dataset):
                check_metadata(meant, found, where)
        elif spec.get("drop_labels"):
            columns = found.column_names.values() if isinstance(found, Mapping) else [found.column_names]
            found = found.remove_columns(LABEL) if all(LABEL in names for names in columns) else found
        found = only_split(found)
        if count is None:
            return found
        if isinstance(found, datasets.IterableDataset):
            return _read(found, count)
        return found.select(range(min(count, len(found)))) if isinstance(found, datasets.Dataset) else found
    except InputError:
        raise
    except Exception as error:  # the loaders of `datasets` raise whatever their readers raise
        lines = [line.strip() for line in str(error.__cause__ or error).strip().splitlines() if line.strip()]
        if lines and lines[0].startswith("An error occurred") and len(lines) > 1:
            del lines[0]
        raise InputError(
            f"{where}: cannot load {_short(spec)}: {' '.join(lines[:2]) if lines else type(error).__name__}"
        ) from error


def _read(stream: datasets.IterableDataset, count: int) -> datasets.Dataset:
    """The first rows of a stream, images as they are stored."""
    features = stream.features
    for name in [name for name, feature in (features or {}).items() if isinstance(feature, datasets.Image)]:
        stream = stream.cast_column(name, datasets.Image(decode=False))
    return datasets.Dataset.from_list(list(stream.take(count)), features=stream.features)


def _folder(
    spec: str | Path, column: str, where: str, known: Collection[str]
) -> datasets.Dataset | datasets.DatasetDict:
    path = Path(os.path.expanduser(spec))
    if is_saved(path):
        return saved(path, None, where)
    if path.is_dir() or (path.is_file() and is_archive(path.name)):
        return folder_of_images(path, column, where, known)
    advice = "no such folder of images"
    if path.is_file():
        advice = (
            "a file, no folder of images; give its folder, or {path: csv, data_files: FILE, split: train} and the like"
        )
    elif "://" in str(spec):
        advice = "no folder; give the address as {path: FORMAT, data_files: ADDRESS, split: train}"
    elif isinstance(spec, str) and REPO_ID.fullmatch(spec):
        advice = f"no such folder of images; a data set of the Hub is {{path: {spec}, split: train}}"
    raise InputError(f"{where}: {spec}: {advice}")


def _with_files(dataset: datasets.Dataset, column: str, spec: Any, where: str) -> datasets.Dataset:
    """Paths in a column, which are relative to the file that they are written in."""
    feature, files = dataset.features[column], spec.get("data_files") if isinstance(spec, Mapping) else None
    if isinstance(spec, Mapping) and files is None and spec.get("path") in KINDS:
        files = as_meant(dict(spec), where).get("data_files")
    is_text = isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")
    is_struct = isinstance(feature, Mapping) and feature.keys() == {"bytes", "path"}
    if files is None or not (is_text or is_struct or isinstance(feature, datasets.Image)):
        return dataset
    values = dataset.cast_column(column, datasets.Image(decode=False)).data.column(column).to_pylist()
    relative = [v for v in values if v and v["bytes"] is None and v["path"] and not _is_whole(v["path"])]
    if not relative:
        return dataset
    names = [found for name in flat(files) if "://" not in name for found in (glob.glob(name) or [name])]
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


def _short(spec: Mapping[str, Any]) -> str:
    shown = ("path", "name", "data_dir", "data_files", "split", "revision")  # no token
    return ", ".join(f"{key}={spec[key]}" for key in shown if spec.get(key) is not None)
