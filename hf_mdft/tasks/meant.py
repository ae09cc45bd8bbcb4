"""Which local files arguments of `load_dataset` stand for: pictures are read whatever words their names hold."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import yaml
from datasets.data_files import get_data_patterns, resolve_pattern
from huggingface_hub import metadata_load

from ..core.errors import InputError
from .archives import is_archive
from .folders import chosen, endings, files_in, part_of_images, pictures_in
from .named import Found


logger = logging.getLogger(__name__)

SAME_PICTURES = frozenset(
    "path data_dir data_files split name streaming token revision cache_dir keep_in_memory num_proc download_mode "
    "verification_mode download_config save_infos storage_options drop_labels".split()
)
"""Options of `load_dataset` that do not change how a local folder's pictures are read."""

KINDS = {"csv": (".csv", ".tsv"), "json": (".json", ".jsonl"), "parquet": (".parquet",)}
"""Endings of the files that loaders of tables read, by loader."""

TABLES = frozenset({".arrow", *(ending for kind in KINDS.values() for ending in kind)})
"""Endings of files that `datasets` reads as tables."""


def local_images(spec: Mapping[str, Any], where: str, known: Collection[str] = ()) -> Any:
    """Images of a local folder or local archives: all of them, where `datasets` drops what a word such as `train` in
    a file's name seems to leave to another part; `None` where it is something else that `datasets` reads."""
    path, files, split = spec.get("path"), spec.get("data_files"), spec.get("split")
    if path == "imagefolder" and files is not None:
        names = flat(files)
        if not names or not all(is_archive(name) and os.path.isfile(name) for name in names):
            return None
        parts = files if isinstance(files, Mapping) else {"train": files}
        found = {n: [p for file in flat(part) for p in pictures_in(Path(file), where)] for n, part in parts.items()}
        return chosen(found, split, "image", where, known)
    folder = _folder_of(spec)
    is_other = path in KINDS or files is not None or spec.keys() - SAME_PICTURES
    if folder is None or is_other or _states_files(spec):
        return None
    pictures, metadata = _is_of_pictures(path, files_in(folder))
    return part_of_images(folder, split, "image", where, known) if pictures and not metadata else None


def _is_of_pictures(path: Any, names: Sequence[str]) -> tuple[bool, bool]:
    """Whether a loader should take files with these names for pictures, and whether tables tell more of them."""
    tables = [name for name in names if _ending(name) in TABLES]
    pictures = [name for name in names if _ending(name) in endings() or is_archive(name)]
    metadata = any(Path(name).stem == "metadata" for name in tables)
    return path == "imagefolder" or (path not in KINDS and (metadata or len(pictures) > len(tables))), metadata


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # `Path` takes several times as long, for every picture


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


def as_meant(spec: dict[str, Any], where: str) -> dict[str, Any]:
    """Arguments of `load_dataset` whose files are meant: names with brackets are no patterns; of a folder of images
    all are read, whatever words their names hold; of one of tables those of the loader's kind."""
    root = _folder_of(spec)
    if "data_files" in spec:
        spec["data_files"] = _each(spec["data_files"], _literal)
    elif root is not None and not _states_files(spec):
        kinds = KINDS.get(spec["path"])
        if kinds:
            files = _parts_of_tables(root, kinds)
            rest = {key: value for key, value in spec.items() if key != "data_dir"}
            return {**rest, "data_files": files} if files else spec
        found = files_in(root)
        named = [Path(name) for name in found if os.path.basename(name).startswith("metadata.")]
        metadata = [path for path in named if path.stem == "metadata" and path.suffix in TABLES]
        of_pictures, _ = _is_of_pictures(spec["path"], found)
        if of_pictures and any(_ending(name) in endings() for name in found):
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


def _unescaped(name: str) -> str:
    """The name of a file that `glob.escape` made a pattern for it alone."""
    return re.sub(r"\[([*?[])\]", r"\1", name)


def _each(value: Any, function: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _each(item, function) for key, item in value.items()}
    return [_each(item, function) for item in value] if isinstance(value, list | tuple) else function(value)


def check_metadata(meant: Mapping[str, Any], found: datasets.Dataset, where: str) -> None:
    """`datasets` leaves out pictures that a folder's metadata do not name, and takes those of other parts that they
    name.

    Args:
        meant: What `as_meant` made.
        found: What was read.
        where: Names the data set in messages.

    Raises:
        InputError: Pictures of other parts are among those of this one.
    """
    parts, split = meant.get("data_files"), str(meant.get("split"))
    names = {text.split("[")[0].strip() for text in split.split("+")}
    is_known = isinstance(parts, Mapping) and (split == "all" or names <= parts.keys())
    if not is_known or not isinstance(found.features.get("image"), datasets.Image):
        return
    pictures = {
        name: {os.path.realpath(_unescaped(file)) for file in files if Path(file).suffix.lower() in endings()}
        for name, files in parts.items()
    }
    own = set().union(*(pictures[name] for name in pictures if name in names or split == "all"))
    rows = found.cast_column("image", datasets.Image(decode=False))["image"]
    read = {os.path.realpath(row["path"]) for row in rows if row and row["path"]}
    if read & (set().union(*pictures.values()) - own):
        raise InputError(
            f"{where}: the metadata file of the whole folder names pictures of other parts than {split}; put one into "
            "the folder of each part, or rename folders that are no parts"
        )
    if "[" not in split and (missing := len(own - read)):
        logger.warning(
            "%s: %d of %d pictures are not in the folder's metadata, and left out", where, missing, len(own)
        )


def flat(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [name for item in value.values() for name in flat(item)]
    if isinstance(value, list | tuple):
        return [name for item in value for name in flat(item)]
    return [] if value is None else [str(value)]
