"""What a task is, and its one written form."""

from __future__ import annotations

import dataclasses
import glob
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
from PIL import ImageColor

from ..core.data_reference import DataReference
from ..core.errors import InputError, suggest
from ..core.reference import REPO_ID, ModelReference, several
from .decode import MAX_PIXELS, Showing


LOADERS = frozenset(_PACKAGED_DATASETS_MODULES)
"""Names of the loaders of `datasets` for formats: a folder of that name does not stand in for one."""

IMAGES = ("unlabelled", "evaluation")
FILES = ("data_files", "data_dir")
READING = ("label_names", "on_bad_image", "image_range", "background", "max_pixels")
"""Options of how pictures and labels are read."""

NO_PATH = "'path' is missing (a dataset's Hub id, or a format such as parquet with data_files)"

POOL_HEADS = ("zero_shot", "linear")
"""Heads that are built from a pool; others are files or objects."""


@dataclass
class Task:
    """Unlabelled images of one task, and how its classes are recognised.

    Args:
        unlabelled: Images to learn from: a `datasets.Dataset`, keyword arguments of `datasets.load_dataset`, a folder,
            or a list of paths, pictures or arrays. Every column but the image is dropped on load; labels are never
            read.
        evaluation: Labelled images, in any of these forms but a list; optional, and the only place where labels are
            read.
        image_column: Name of the image column, in both.
        label_column: Name of the label column in `evaluation`.
        class_names: Names of the classes in label order. The default is the linear head's, or those of the dataset's
            `ClassLabel`. A head of the same classes is put into this order; of others, they rename the classes.
        templates: Prompts with `{}` for the class name, or the name of a built-in set (see `hf_mdft.heads.TEMPLATES`).
        head: `"zero_shot"`, `"linear"` (the expert's own classifier), the path of a head in safetensors, or a
            `Head`. The default is what the pool's architecture uses.
        teachers: Image classifiers or zero-shot models from outside the pool, of any architecture and input size
            (folders or Hub ids): they give soft targets, no weights, and their classes are matched by name.
        label_names: Which class each label of `evaluation` is, where names do not tell: class names in the order of
            labels 0, 1, ..., or by label; `"in_order"`: labels number the classes in the order of `class_names`.
        on_bad_image: `"error"`, or `"skip"` to leave out pictures that cannot be read; all are named either way.
        image_range: Values that are black and white in gray pictures of more than 8 bits. The default finds them: the
            smallest of 8, 10, 12, 14 and 16 bits that holds the largest value of all of the task's pictures.
        background: Color behind transparent parts, as in CSS.
        max_pixels: Pixels of the largest picture that is opened.
    """

    def __post_init__(self) -> None:
        values = vars(self)
        _check(values, "Task")
        self.class_names = values["class_names"]

    def showing(self) -> Showing:
        """How pictures become RGB."""
        limits = None if self.image_range is None else (float(self.image_range[0]), float(self.image_range[1]))
        return Showing(limits, self.background, self.max_pixels)

    unlabelled: Any
    evaluation: Any = None
    image_column: str = "image"
    label_column: str = "label"
    class_names: list[str] | None = None
    templates: list[str] | str = "default"
    head: Any = None
    teachers: list[str] | str | None = None
    label_names: list[str] | dict[Any, str] | str | None = None
    on_bad_image: str = "error"
    image_range: list[float] | None = None
    background: str = "white"
    max_pixels: int = MAX_PIXELS

    @classmethod
    def from_dict(
        cls,
        options: Any,
        where: str,
        *,
        folder: Path | None = None,
        defaults: Task | None = None,
        foreign: bool = False,
    ) -> Task:
        """A task from its written form: in a recipe, a published pool or a saved meta-model.

        Args:
            options: Keys and values, named as the arguments above.
            where: Names the task in messages: a file and the keys that lead to it.
            folder: Folder that relative paths start from.
            defaults: A task whose values stand where the options have none.
            foreign: The text is somebody else's. It may hold classes, prompts, columns, Hub data sets and heads
                inside `folder`: nothing that reads other files, or from elsewhere. The rest is ignored.

        Raises:
            InputError: A key is unknown, or a value is not what it should be; the message names it.
        """
        if options is None:
            options = {}
        if not isinstance(options, Mapping):
            raise InputError(f"{where}: expected keys and values, got {type(options).__name__}")
        known = [field.name for field in dataclasses.fields(cls)]
        found = _harmless(options, known, folder) if foreign else dict(options)
        for key in found:
            if key not in known:
                raise InputError(f"{where}: unknown key '{key}': {suggest(str(key), known)}")
        for key in IMAGES:
            if found.get(key) is not None:
                found[key] = _images(found[key], f"{where}.{key}", folder)
        _check(found, where)
        if "teachers" in found:
            found["teachers"] = _teachers(found["teachers"], where, None if foreign else folder)
        if not foreign and str(found.get("head")).endswith(".safetensors"):
            found["head"] = resolve_path(found["head"], folder)
        return cls(**{"unlabelled": None, **({} if defaults is None else vars(defaults)), **found})

    def to_dict(self, class_names: list[str] | None = None) -> dict[str, Any]:
        """The written form, as it may leave this machine: without folders and secrets (see `DataReference`), and
        without what is left at its default.

        Args:
            class_names: Names that a head has, where the task itself names none.
        """
        plain = {field.name: field.default for field in dataclasses.fields(self)}
        written = {key: shown.to_dict() for key in IMAGES if (shown := DataReference.of(getattr(self, key)))}
        written["class_names"] = self.class_names or class_names
        for name in ("image_column", "label_column", "templates", *READING):
            if getattr(self, name) != plain[name]:
                written[name] = getattr(self, name)
        teachers = [ModelReference.parse(spec) for spec in several(self.teachers)]
        if on_hub := [reference.spec for reference in teachers if not reference.is_local]:
            written["teachers"] = on_hub
        if self.head is not None:
            is_file = isinstance(self.head, str | Path)
            written["head"] = Path(self.head).name if is_file else f"a {self.head.name} head in memory"
        return {name: value for name, value in written.items() if value is not None}


def _harmless(options: Mapping[str, Any], known: list[str], folder: Path | None) -> dict[str, Any]:
    """The options of somebody else's task that are harmless here."""
    found = {key: value for key, value in options.items() if key in known}
    for key in IMAGES:
        shown = DataReference.from_dict(found.pop(key, None))
        if shown is not None and shown.on_hub:
            found[key] = shown.to_dict()
    teachers = several(found.pop("teachers", None))
    found["teachers"] = [spec for spec in teachers if isinstance(spec, str) and REPO_ID.fullmatch(spec.split("@")[0])]
    head = found.pop("head", None)
    if head in POOL_HEADS:
        found["head"] = head
    elif folder is not None and isinstance(head, str) and head.endswith(".safetensors"):
        # By the path's text: in the Hub's cache files are links to elsewhere.
        path = Path(os.path.normpath(folder / head))
        if path.is_relative_to(os.path.normpath(folder)):
            found["head"] = str(path.absolute())
    return found


def _images(value: Any, where: str, folder: Path | None) -> Any:
    if isinstance(value, str):
        return resolve_path(value, folder)
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: expected keys and values, got {type(value).__name__}")
    if "path" not in value:
        raise InputError(f"{where}: {NO_PATH}")
    found = dict(value)
    if found["path"] not in LOADERS:  # files lie in its folder, or the data set's repo
        return found | {"path": resolve_path(found["path"], folder)}
    for key in found.keys() & set(FILES):
        found[key] = _each(found[key], lambda file: resolve_path(file, folder, local=True))
    return found


def _check(found: dict[str, Any], where: str) -> None:
    """Whether options can be what they are; class names become text."""
    for key in ("image_column", "label_column"):
        if not isinstance(found.get(key, ""), str):
            raise InputError(f"{where}: {key} must be the name of a column, got {found[key]!r}")
    if found.get("class_names") is not None:
        found["class_names"] = _names(found["class_names"], where)
    templates = found.get("templates", "default")
    if not isinstance(templates, str | list):
        raise InputError(f"{where}: templates must be a list or the name of a set, got {templates}")
    if found.get("on_bad_image", "error") not in ("error", "skip"):
        raise InputError(f"{where}: on_bad_image must be 'error' or 'skip', got {found['on_bad_image']!r}")
    limits = found.get("image_range")
    if limits is not None:
        numbers = isinstance(limits, list | tuple) and all(
            type(x) in (int, float) and math.isfinite(x) for x in limits
        )
        if not numbers or len(limits) != 2 or limits[0] >= limits[1]:
            raise InputError(f"{where}: image_range must be two numbers, the smaller first, got {limits!r}")
    try:
        ImageColor.getrgb(found.get("background", "white"))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{where}: background must be a color such as white or '#808080', got {found['background']!r}"
        ) from error
    most = found.get("max_pixels", MAX_PIXELS)
    if type(most) is not int or most < 1:
        raise InputError(f"{where}: max_pixels must be a whole number, got {most!r}")
    if not isinstance(found.get("label_names"), list | Mapping | None) and found["label_names"] != "in_order":
        raise InputError(
            f"{where}: label_names must be a list, names by label, or in_order, got {found['label_names']!r}"
        )


def _names(names: Any, where: str) -> list[str]:
    names = names.tolist() if isinstance(names, np.ndarray) else names
    if not isinstance(names, list | tuple) or len(names) < 2:
        raise InputError(f"{where}: class_names must list at least two names")
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int | np.integer) or not str(name).strip():
            shown = "null" if name is None else repr(name)
            raise InputError(f"{where}: class_names holds {shown}; write names, yes and no in quotes")
    return [str(name) for name in names]


def _teachers(value: Any, where: str, folder: Path | None) -> list[str]:
    for spec in several(value):
        if not isinstance(spec, str):
            raise InputError(f"{where}: teachers must be folders or Hub ids, got {spec!r}")
    return [resolve_path(spec, folder) for spec in several(value)]


def _each(value: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _each(item, function) for key, item in value.items()}
    if isinstance(value, list):
        return [_each(item, function) for item in value]
    return function(value)


def resolve_path(spec: Any, folder: Path | None, local: bool = False) -> str:
    """A path relative to a folder made absolute; Hub ids and addresses as they are.

    Args:
        spec: What is written.
        folder: The folder that it is relative to; `None` leaves it.
        local: Whether it can be nothing but a path.

    Raises:
        InputError: It is not there, but in the working directory, where it is not meant.
    """
    spec = str(spec)
    if "://" in spec or folder is None:
        return spec
    place = folder / Path(os.path.expanduser(spec))
    relative = spec.startswith((".", "~", "/")) or glob.has_magic(spec)
    if local or relative or place.exists() or any(place.parent.glob(place.name)):
        return str(place.resolve())
    if os.path.exists(spec) and folder.resolve() != Path.cwd():
        raise InputError(
            f"{spec}: not in {folder}, but in the working directory; relative paths start from the recipe: write the "
            "whole path"
        )
    return spec
