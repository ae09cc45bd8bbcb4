"""Images as others are shown them: which data set, and nothing of this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any


HUB_DATASET = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class DataReference:
    """Arguments of `datasets.load_dataset` without folders and secrets, or how many images an object holds.

    One rule for everything that leaves this machine: names of files instead of where they lie; addresses without user,
    password and query; no token, no options of a storage, no cache folder.

    Args:
        path: Hub id of a data set, or a format such as `parquet`.
        name, split, revision, data_dir, data_files, streaming: As in `load_dataset`.
        take: Images that are read of a stream.
        count: Number of images, of an object in memory.
    """

    path: str | None = None
    name: str | None = None
    split: str | None = None
    revision: str | None = None
    data_dir: str | None = None
    data_files: Any = None
    streaming: bool | None = None
    take: int | None = None
    count: int | None = None

    @classmethod
    def of(cls, spec: Any) -> DataReference | None:
        """From what a task holds: arguments of `load_dataset`, an object, or `None`."""
        if spec is None or isinstance(spec, cls):
            return spec
        if isinstance(spec, str | PurePath):
            return cls(path="imagefolder", data_dir=_public(str(spec)))
        if not isinstance(spec, Mapping) or "path" not in spec:
            return cls(count=len(spec))
        known = {field.name for field in fields(cls)} - {"count"}
        shown = {key: _public(value) for key, value in spec.items() if key in known and value is not None}
        if isinstance(spec["path"], str | PurePath) and os.path.isdir(spec["path"]):  # it may look like a Hub id
            shown["path"] = PurePath(os.path.abspath(spec["path"])).name
        return cls(**shown)

    @property
    def on_hub(self) -> bool:
        """Whether others can find it."""
        return HUB_DATASET.fullmatch(self.path or "") is not None and not self.data_files

    def to_dict(self) -> dict[str, Any] | str:
        """As recipes write it; an object in memory in words."""
        if self.count is not None:
            return f"{self.count} images in memory"
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}

    @classmethod
    def from_dict(cls, value: Any) -> DataReference | None:
        """What `to_dict` gave; `None` where it is something else."""
        counted = re.fullmatch(r"(\d+) images in memory", value) if isinstance(value, str) else None
        if counted:
            return cls(count=int(counted[1]))
        if not isinstance(value, Mapping) or "path" not in value:
            return None
        return cls(**{f.name: _public(value[f.name]) for f in fields(cls) if value.get(f.name) is not None})


def _public(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _public(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_public(item) for item in value]
    if isinstance(value, bool | int):
        return value
    # Chained addresses of fsspec, such as `zip://*.jpg::/folder/photos.zip`.
    return "::".join(_public_address(part) for part in str(value).split("::"))


def _public_address(text: str) -> str:
    kind, found, rest = text.partition("://")
    if not found or kind == "file":
        return file_name(rest if found else text)
    if kind in ("zip", "tar"):  # what it lies in is the next part of the chain
        return text
    rest = re.sub(r"[?#].*", "", rest)
    # A secret may hold `/` and `@`: everything up to the last `@` of an address that has one goes.
    return f"{kind}://{rest.rpartition('@')[2] if kind not in ('hf', 'hdfs') else rest}"


def file_name(text: str) -> str:
    """The last part of a path that leads to somewhere on a machine, of any system; other text as it is."""
    if text.startswith("~"):
        return PurePosixPath(text).name
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(text).is_absolute():
            return kind(text).name or text
    return text
