"""A run in one YAML file."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..adapter import STRONG_TRANSFORM, MdftConfig
from ..cards.cards import is_hub_dataset, public_dataset
from ..core.errors import InputError, suggest
from ..heads import TEMPLATES
from ..merger import MetaMerger
from ..meta import MdftTrainingArguments
from ..pool import ModelPool, ModelSource
from ..pool.discovery import Candidate
from ..pool.published import read_published
from ..specialize import SpecializeArguments
from ..tasks import Task
from .presets import preset


ADAPTER_KEYS = ("granularity", "transform", "init_coefficient")
FILE_KEYS = ("data_files", "data_dir")


@dataclass
class Recipe:
    """What a recipe file says, checked, with paths made absolute.

    Args:
        path: Of the file.
        base: Folder or Hub id (with the revision, where the pool was read from the Hub).
        experts: By task; `None` for a task without an expert.
        tasks: By name.
        adapter: Options of `MdftConfig`.
        meta: Options of `MdftTrainingArguments`.
        specialize: Options of `SpecializeArguments`.
        seed: Of everything random.
    """

    path: Path
    base: str
    experts: dict[str, str | None]
    tasks: dict[str, Task]
    adapter: dict[str, Any]
    meta: dict[str, Any]
    specialize: dict[str, Any]
    seed: int

    @classmethod
    def load(cls, path: str | Path, token: str | bool | None = None, images: bool = True) -> Recipe:
        """Read a recipe.

        Args:
            path: Of the file.
            token: For a pool that is read from the Hub.
            images: Whether every task must name unlabelled images; to look at a pool none is needed.

        Raises:
            InputError: The file is missing or no YAML, or holds an unknown key or a value of the wrong kind; the
                message names the key and suggests the nearest.
        """
        path = Path(path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            raise InputError(f"{path}: cannot read the recipe ({reason})") from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f", line {mark.line + 1}" if mark else ""
            raise InputError(f"{path}{line}: no valid YAML ({getattr(error, 'problem', error)})") from error
        where = str(path)
        content = _mapping(content, where, ("pool", "tasks", "adapter", "meta", "specialize", "seed"))
        if not content.get("pool"):
            raise InputError(f"{where}: 'pool' is missing")
        base, experts, described = _pool(content["pool"], path, token)
        written = _mapping(content.get("tasks"), f"{where}: tasks")
        if not written and not described:
            raise InputError(f"{where}: 'tasks' is missing")
        options = {str(name): _mapping(task, f"{where}: tasks.{name}") for name, task in written.items()}
        if not options:
            options = {name: {} for name in described}
        tasks = {
            name: _task(name, {**described.get(name, {}), **task}, path, images) for name, task in options.items()
        }
        for name in tasks:
            if name not in experts:
                raise InputError(
                    f"{where}: task '{name}' is not under pool.experts (null for none): {suggest(name, experts)}"
                )
        seed = content.get("seed", 0)
        if not isinstance(seed, int):
            raise InputError(f"{where}: seed must be a whole number, got '{seed}'")
        return cls(
            path,
            base,
            experts,
            tasks,
            _adapter(content.get("adapter"), f"{where}: adapter"),
            _options(content.get("meta"), MdftTrainingArguments, f"{where}: meta"),
            _options(content.get("specialize"), SpecializeArguments, f"{where}: specialize"),
            seed,
        )

    def with_preset(self, name: str) -> Recipe:
        """The same pool and tasks with a published method's settings; what the method leaves open stays.

        Raises:
            InputError: No such preset.
        """
        parts = {part: {**getattr(self, part), **options} for part, options in preset(name).items()}
        return dataclasses.replace(self, **parts)

    def pool(self, token: str | bool | None = None) -> ModelPool:
        """The pool, found and checked, with what the recipe says of its tasks."""
        pool = ModelPool.from_pretrained(self.base, self.experts, token=token)
        pool.descriptions = {name: described(task) for name, task in self.tasks.items()}
        return pool

    def merger(self, token: str | bool | None = None) -> MetaMerger:
        """The pool with its tasks."""
        pool = self.pool(token)
        return MetaMerger(pool, self.tasks, MdftConfig(**self.adapter), self.seed)

    def meta_arguments(self, folder: str | Path, **overrides: Any) -> MdftTrainingArguments:
        """Arguments of phase 1, with checkpoints under `folder`."""
        where, work = f"{self.path}: meta", Path(folder) / "meta"
        return _arguments(MdftTrainingArguments, self.meta, where, work, self.seed, overrides)

    def specialize_arguments(self, folder: str | Path, **overrides: Any) -> SpecializeArguments:
        """Arguments of phase 2, with work in progress under `folder`."""
        where, work = f"{self.path}: specialize", Path(folder) / "specialists"
        return _arguments(SpecializeArguments, self.specialize, where, work, self.seed, overrides)


def _arguments(
    kind: type, options: dict[str, Any], where: str, folder: Path, seed: int, overrides: dict[str, Any]
) -> Any:
    try:
        return kind(**{"seed": seed, **options, "output_dir": str(folder), **overrides})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {str(error).splitlines()[0]}") from error


def _mapping(value: Any, where: str, known: tuple[str, ...] | None = None) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: expected keys and values, got {type(value).__name__}")
    for key in value:
        if known is not None and key not in known:
            raise InputError(f"{where}: unknown key '{key}': {suggest(str(key), known)}")
    return dict(value)


def _pool(
    value: Any, path: Path, token: str | bool | None
) -> tuple[str, dict[str, str | None], dict[str, dict[str, Any]]]:
    """Base, experts, and what a published pool says of its tasks."""
    where = f"{path}: pool"
    if isinstance(value, str):
        published = read_published(_resolve(value, path), None, token)
        reference = published["pool"]

        def pinned(source: Mapping[str, str]) -> str:
            return f"{source['id']}@{source['revision']}"

        experts = {task: reference["experts"][task] for task in reference["tasks"]}
        specs = {task: None if source is None else pinned(source) for task, source in experts.items()}
        return pinned(reference["base"]), specs, published["tasks"]
    pool = _mapping(value, where, ("base", "experts"))
    for key in ("base", "experts"):
        if not pool.get(key):
            raise InputError(f"{where}.{key} is missing")
    experts = _mapping(pool["experts"], f"{where}.experts")
    for key, spec in {"base": pool["base"], **{f"experts.{task}": spec for task, spec in experts.items()}}.items():
        if spec is not None and not isinstance(spec, str):
            raise InputError(f"{where}.{key} must be a folder or a Hub id, got {spec}")
    found = {str(name): None if spec is None else _resolve(spec, path) for name, spec in experts.items()}
    return _resolve(pool["base"], path), found, {}


def described(task: Task) -> dict[str, Any]:
    """What a task tells others: class names, prompts, columns, and images that lie on the Hub."""
    defaults = {field.name: field.default for field in dataclasses.fields(Task)}
    options = {
        name: getattr(task, name)
        for name in ("class_names", "templates", "image_column", "label_column")
        if getattr(task, name) != defaults[name]
    }
    if task.head in ("zero_shot", "linear"):
        options["head"] = task.head
    for name in ("unlabelled", "evaluation"):
        spec = getattr(task, name)
        if is_hub_dataset(spec):
            options[name] = public_dataset(spec)
    return options


def _options(value: Any, kind: type, where: str) -> dict[str, Any]:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    options = _mapping(value, where, tuple(fields))
    for key, option in options.items():
        # YAML reads 1e-3 (without a point) as text.
        if isinstance(option, str) and "float" in str(fields[key].type):
            try:
                options[key] = float(option)
            except ValueError as error:
                raise InputError(f"{where}: {key} must be a number, got '{option}'") from error
        wanted = str(fields[key].type)
        if wanted in ("int", "float") and (
            isinstance(options[key], bool) or not isinstance(options[key], int | float)
        ):
            raise InputError(f"{where}: {key} must be a number, got '{option}'")
        if wanted in ("int", "int | None") and isinstance(options[key], float) and options[key] % 1:
            raise InputError(f"{where}: {key} must be a whole number, got {option}")
    return options


def _adapter(value: Any, where: str) -> dict[str, Any]:
    options = _mapping(value, where, ADAPTER_KEYS)
    try:
        MdftConfig(**options)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {str(error).splitlines()[0]}") from error
    return {"transform": dict(STRONG_TRANSFORM), **options}


def _task(name: str, value: Any, path: Path, images: bool) -> Task:
    where = f"{path}: tasks.{name}"
    options = _mapping(value, where, tuple(field.name for field in dataclasses.fields(Task)))
    if not options.get("unlabelled") and images:
        raise InputError(f"{where}: 'unlabelled' is missing: the images to learn from, as arguments of load_dataset")
    options.setdefault("unlabelled", None)
    for key in ("unlabelled", "evaluation"):
        if options.get(key):
            options[key] = _dataset(_mapping(options[key], f"{where}.{key}"), path, f"{where}.{key}")
    names = options.get("class_names")
    if names is not None:
        if not isinstance(names, list) or len(names) < 2:
            raise InputError(f"{where}: class_names must list at least two names")
        options["class_names"] = [str(class_name) for class_name in names]
    templates = options.get("templates", [])
    if not isinstance(templates, str | list):
        raise InputError(f"{where}: templates must be a list or the name of a set, got {templates}")
    head = options.get("head")
    if isinstance(head, str) and head.endswith(".safetensors"):
        options["head"] = _resolve(head, path)
    return Task(**options)


def _dataset(options: dict[str, Any], path: Path, where: str) -> dict[str, Any]:
    if "path" not in options:
        raise InputError(
            f"{where}: 'path' is missing (a dataset's Hub id, or a format such as parquet with data_files)"
        )
    for key in FILE_KEYS:
        if key in options:
            options[key] = _each(options[key], lambda file: _resolve(file, path))
    if (path.parent / str(options["path"])).exists():
        options["path"] = _resolve(options["path"], path)
    return options


def _each(value: Any, function: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _each(item, function) for key, item in value.items()}
    if isinstance(value, list):
        return [_each(item, function) for item in value]
    return function(value)


def _resolve(spec: Any, path: Path) -> str:
    """A path relative to the recipe becomes absolute; Hub ids and addresses stay."""
    spec = str(spec)
    if "://" in spec:
        return spec
    local = path.parent / Path(spec).expanduser()
    relative = spec.startswith((".", "~", "/"))
    return str(local.resolve()) if relative or local.exists() or any(local.parent.glob(local.name)) else spec


def draft(base: ModelSource, candidates: list[Candidate]) -> str:
    """A recipe with models that `hf-mdft pool discover` found, to be edited: what the Hub does not tell is marked.

    Of several models for one data set, the most downloaded is taken, and the others are named in comments.
    """
    lines = [
        f"# Fine-tuned models of {base.id} that fit it. Delete what you do not want, and complete what is marked.",
        "pool:",
        f"  base: {_quoted(f'{base.id}@{base.revision}')}",
        "  experts:",
    ]
    taken, tasks = {}, []
    for found in candidates:
        about = f"{found.license or 'no license stated'}, {found.downloads} downloads"
        line = f"{_quoted(found.task)}: {_quoted(f'{found.id}@{found.revision}')}  # {' '.join(about.split())}"
        key = found.datasets[0] if found.datasets else None
        if key and key in taken:
            lines.append(f"    # same data set as {taken[key]}: {line}")
            continue
        taken[key] = found.task
        lines.append(f"    {line}")
        templates = found.task.replace("-", "_")
        tasks.append(f"  {_quoted(found.task)}:")
        images = (
            f"{{path: {_quoted(key)}, split: train}}  # from its card: check split and config"
            if key
            else ("null  # COMPLETE: arguments of datasets.load_dataset, such as {path: me/images, split: train}")
        )
        tasks.append(f"    unlabelled: {images}")
        tasks.append("    # evaluation: {path: ..., split: test}  # optional; the only use of labels")
        tasks.append("    # class_names: [...]  # default: the data set's own")
        if templates in TEMPLATES:
            tasks.append(f"    templates: {templates}")
    return "\n".join([*lines, "tasks:", *tasks, ""])


def _quoted(text: str) -> str:
    """A YAML string that nothing in it can end, plain where that is safe."""
    plain = re.fullmatch(r"[A-Za-z][\w./@-]*", text) and yaml.safe_load(text) == text
    return text if plain else json.dumps(text)
