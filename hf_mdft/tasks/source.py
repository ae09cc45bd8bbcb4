"""Opening the data set of a task."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import yaml
from datasets.data_files import get_data_patterns, resolve_pattern
from huggingface_hub import metadata_load

from ..core.errors import InputError, suggest
from ..core.reference import REPO_ID
from .archives import is_archive, is_hidden
from .folders import LABEL, Found, chosen, endings, folder_of_images, names_in, part_of_images, pictures_in
from .listed import listed


SAME_PICTURES = frozenset(
    "path data_dir data_files split name streaming token revision cache_dir keep_in_memory num_proc download_mode "
    "verification_mode download_config save_infos storage_options drop_labels".split()
)
"""Options of `load_dataset` that do not change how a local folder's pictures are read."""

KINDS = {"csv": (".csv", ".tsv"), "json": (".json", ".jsonl"), "parquet": (".parquet",)}
"""Endings of the files that loaders of tables read, by loader."""

TABLES = frozenset({".arrow", *(ending for kind in KINDS.values() for ending in kind)})
"""Endings of files that `datasets` reads as tables."""

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
        spec = _folder(spec, column, where)
    elif isinstance(spec, Mapping) and not isinstance(spec, datasets.DatasetDict | datasets.IterableDatasetDict):
        spec = _loaded(dict(spec), where)
    elif isinstance(spec, list | tuple | np.ndarray | datasets.arrow_dataset.Column):
        spec = listed(spec, column, where)
    if isinstance(spec, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise InputError(f"{where}: the dataset has splits {', '.join(spec)}; name one with 'split'")
    if isinstance(spec, datasets.IterableDataset):
        raise InputError(
            f"{where}: a stream, of which it is not known where it ends; say how many images are read: datasets."
            "Dataset.from_list(list(stream.take(2000))), or take: 2000 beside streaming: true"
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
    for key in ("path", "data_dir", "name", "split"):
        if spec.get(key) is not None and not isinstance(spec[key], str | Path | datasets.ReadInstruction):
            raise InputError(f"{where}: {key} must be text, got {spec[key]!r}")
    given, found = spec, _local_images(spec, where)
    try:
        if found is None:
            found = datasets.load_dataset(**_as_meant(dict(spec), where))
        elif spec.get("drop_labels"):
            columns = found.column_names.values() if isinstance(found, Mapping) else [found.column_names]
            found = found.remove_columns(LABEL) if all(LABEL in names for names in columns) else found
        if count is None:
            return found
        if isinstance(found, datasets.IterableDataset):
            return _read(found, count)
        return found.select(range(min(count, len(found)))) if isinstance(found, datasets.Dataset) else found
    except InputError:
        raise
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


def _local_images(spec: Mapping[str, Any], where: str) -> Any:
    """Images of a local folder or local archives: all of them, where `datasets` drops what a word such as `train` in
    a file's name seems to leave to another part; `None` where it is something else that `datasets` reads."""
    path, files, split = spec.get("path"), spec.get("data_files"), spec.get("split")
    if path == "imagefolder" and files is not None:
        names = _flat(files)
        if not names or not all(is_archive(name) and os.path.isfile(name) for name in names):
            return None
        parts = files if isinstance(files, Mapping) else {"train": files}
        found = {n: [p for file in _flat(part) for p in pictures_in(Path(file), where)] for n, part in parts.items()}
        return chosen(found, split, "image", where)
    folder = _folder_of(spec)
    if folder is None or files is not None or spec.keys() - SAME_PICTURES or _states_files(spec):
        return None
    pictures, metadata = _is_of_pictures(path, names_in(folder))
    return part_of_images(folder, split, "image", where) if pictures and not metadata else None


def _is_of_pictures(path: Any, names: Sequence[str]) -> tuple[bool, bool]:
    """Whether a loader should take files with these names for pictures, and whether tables tell more of them."""
    tables = [name for name in names if Path(name).suffix.lower() in TABLES]
    pictures = [name for name in names if Path(name).suffix.lower() in endings() or is_archive(name)]
    metadata = any(Path(name).stem == "metadata" for name in tables)
    return path == "imagefolder" or (path not in KINDS and (metadata or len(pictures) > len(tables))), metadata


def _folder_of(spec: Mapping[str, Any]) -> Path | None:
    """The local folder that a loader would look into; `None` where it is something else."""
    path, within = spec.get("path"), spec.get("data_dir")
    if path in ("imagefolder", *KINDS):
        folder = within and Path(within)
    else:
        folder = path and Path(path, within or "")
    return folder if folder and folder.is_dir() else None


def _states_files(spec: Mapping[str, Any]) -> bool:
    """Whether the card of a local folder says which files are read, which `datasets` heeds."""
    if spec["path"] in ("imagefolder", *KINDS):
        return False
    card = Path(spec["path"]) / "README.md"
    try:
        found = metadata_load(card) if card.is_file() else None
    except (OSError, ValueError, yaml.YAMLError):
        return True  # `datasets` says what is wrong
    return bool(found and found.get("configs"))


def _as_meant(spec: dict[str, Any], where: str) -> dict[str, Any]:
    """Arguments of `load_dataset` whose files are meant: names with brackets are no patterns; of a folder of images
    all are read, whatever words their names hold; of one of tables those of the loader's kind."""
    root = _folder_of(spec)
    if "data_files" in spec:
        spec["data_files"] = _each(spec["data_files"], _literal)
    elif root is not None and not _states_files(spec):
        found = [path for path in sorted(root.rglob("*")) if not is_hidden(path.name)]
        kinds = KINDS.get(spec["path"])
        if kinds:
            files = _parts_of_tables(root, kinds)
            rest = {key: value for key, value in spec.items() if key != "data_dir"}
            return {**rest, "data_files": files} if files else spec
        metadata = [path for path in found if path.stem == "metadata" and path.suffix in TABLES]
        of_pictures, _ = _is_of_pictures(spec["path"], [path.name for path in found])
        if of_pictures and any(path.suffix.lower() in endings() for path in found):
            parts: dict[str, list[str]] = {}
            for picture in pictures_in(root, where):
                parts.setdefault(picture.part or "train", []).append(glob.escape(picture.path))
            files = {name: [*paths, *_of_part(metadata, root, name)] for name, paths in parts.items()}
            given = {key: value for key, value in spec.items() if key not in ("path", "data_dir")}
            return {"path": "imagefolder", "data_files": files, **given}
    return spec


def _parts_of_tables(root: Path, kinds: Sequence[str]) -> dict[str, list[str]]:
    """A folder's tables of some kinds by the part of the data set that `datasets` takes them for."""
    found = {}
    whole = glob.escape(str(root))
    for part, patterns in get_data_patterns(whole).items():
        files: list[str] = []
        for pattern in patterns:
            with contextlib.suppress(FileNotFoundError):  # nothing matches
                files += resolve_pattern(pattern, whole)
        tables = [name for name in dict.fromkeys(files) if Path(name).suffix.lower() in kinds]
        if tables:
            found[str(part)] = [glob.escape(name) for name in tables]
    return found


def _of_part(metadata: Sequence[Path], root: Path, part: str) -> list[str]:
    """Tables of a part: `datasets` takes all pictures that a table names, whatever part they lie in."""
    found = [
        path for path in metadata if (Found(str(path), path.relative_to(root).parts[:-1]).part or "train") == part
    ]
    return [glob.escape(str(path)) for path in found]


def _literal(name: Any) -> Any:
    """A pattern for a file whose name holds brackets."""
    is_file = isinstance(name, str) and glob.has_magic(name) and os.path.exists(name)
    return glob.escape(name) if is_file else name


def _each(value: Any, function: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _each(item, function) for key, item in value.items()}
    return [_each(item, function) for item in value] if isinstance(value, list | tuple) else function(value)


def _folder(spec: str | Path, column: str, where: str) -> datasets.Dataset:
    path = Path(os.path.expanduser(spec))
    if path.is_dir() or (path.is_file() and is_archive(path.name)):
        return folder_of_images(path, column, where)
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
        files = _as_meant(dict(spec), where).get("data_files")
    is_text = isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")
    is_struct = isinstance(feature, Mapping) and feature.keys() == {"bytes", "path"}
    if files is None or not (is_text or is_struct or isinstance(feature, datasets.Image)):
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
