"""A run in one YAML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..adapter import STRONG_TRANSFORM, MdftConfig
from ..core.errors import InputError, suggest
from ..core.reference import several
from ..core.typed import checked, expect
from ..merger import MetaMerger
from ..meta import MdftTrainingArguments
from ..pool import ModelPool
from ..pool.published import read_published
from ..specialize import SpecializeArguments
from ..tasks import Task
from ..tasks.task import resolve_path
from .options import build, check_epochs, read_options
from .presets import PARTS, preset
from .yaml_files import read_yaml


KEYS = ("pool", "tasks", "teachers", *PARTS, "seed")


@dataclass
class Recipe:
    """The content of a recipe file, checked, with paths made absolute.

    Args:
        path: The recipe's file.
        base: Folder or Hub id (with the revision, where the pool was read from the Hub).
        experts: Folders or Hub ids by task, one or several; none for a task without an expert.
        tasks: Tasks by name.
        adapter: Options of `MdftConfig`.
        meta: Options of `MdftTrainingArguments`.
        specialize: Options of `SpecializeArguments`.
        seed: Seed of every random choice.
        allow_base_mismatch: Whether to take experts whose weights have nothing in common with the base's.
    """

    path: Path
    base: str
    experts: dict[str, list[str]]
    tasks: dict[str, Task]
    adapter: dict[str, Any]
    meta: dict[str, Any]
    specialize: dict[str, Any]
    seed: int
    allow_base_mismatch: bool = False

    @classmethod
    def load(cls, path: str | Path, images: bool = True, allow_base_mismatch: bool = False) -> Recipe:
        """Read a recipe.

        Args:
            path: The recipe's file.
            images: Whether every task must name unlabelled images; to look at a pool none is needed.
            allow_base_mismatch: As the option of the recipe's pool, which it overrules where it is given here.

        Raises:
            InputError: The file is missing or no YAML, or holds an unknown key or a value of the wrong kind; the
                message names the key and suggests the nearest.
        """
        path = Path(expect(path, (str, Path), "the recipe"))
        where = str(path)
        content = _mapping(read_yaml(path), where, KEYS)
        if not content.get("pool"):
            raise InputError(f"{where}: 'pool' is missing")
        base, experts, described = _pool(content["pool"], path)
        given = content["pool"] if isinstance(content["pool"], Mapping) else {}
        mismatch = checked(given.get("allow_base_mismatch", False), bool, f"{where}: pool.allow_base_mismatch")
        written = _mapping(content.get("tasks"), f"{where}: tasks")
        if not written and not described:
            raise InputError(f"{where}: 'tasks' is missing")
        _check_names(written, f"{where}: tasks")
        tasks = {
            str(name): Task.from_dict(
                options, f"{where}: tasks.{name}", folder=path.parent, defaults=described.get(str(name))
            )
            for name, options in (written or dict.fromkeys(described)).items()
        }
        for name, task in tasks.items():
            if images and task.unlabelled is None:
                raise InputError(
                    f"{where}: tasks.{name}: 'unlabelled' is missing: the images to learn from, as arguments of "
                    "load_dataset"
                )
            if name not in experts:
                raise InputError(
                    f"{where}: task '{name}' is not under pool.experts (null for none): {suggest(name, experts)}"
                )
        _add_teachers(tasks, _mapping(content.get("teachers"), f"{where}: teachers"), path)
        parts = {part: read_options(part, content.get(part), f"{where}: {part}") for part in PARTS}
        for part in ("meta", "specialize"):
            check_epochs(part, parts[part], f"{where}: {part}")
        parts["adapter"] = {"transform": dict(STRONG_TRANSFORM), **parts["adapter"]}
        seed = checked(content.get("seed", 0), int, f"{where}: seed")
        return cls(path, base, experts, tasks, **parts, seed=seed, allow_base_mismatch=mismatch or allow_base_mismatch)

    def with_preset(self, name: str) -> Recipe:
        """The same pool and tasks with a published method's settings; what the method leaves open stays.

        Raises:
            InputError: No such preset.
        """
        found = preset(name)
        own = {part: read_options(part, getattr(found, part), f"preset '{name}': {part}") for part in PARTS}
        return dataclasses.replace(self, **{part: {**getattr(self, part), **own[part]} for part in PARTS})

    def pool(self) -> ModelPool:
        """The pool, found and checked, with the recipe's tasks as its descriptions."""
        pool = ModelPool.from_pretrained(self.base, self.experts, allow_base_mismatch=self.allow_base_mismatch)
        pool.descriptions = dict(self.tasks)
        return pool

    def merger(self) -> MetaMerger:
        """The pool with its tasks."""
        return MetaMerger(self.pool(), self.tasks, MdftConfig(**self.adapter), self.seed)

    def meta_arguments(self, folder: str | Path, **overrides: Any) -> MdftTrainingArguments:
        """Arguments of phase 1, with checkpoints under `folder`.

        Raises:
            InputError: They refuse a value.
        """
        return self._arguments("meta", Path(folder) / "meta", overrides)

    def specialize_arguments(self, folder: str | Path, **overrides: Any) -> SpecializeArguments:
        """Arguments of phase 2, with work in progress under `folder`.

        Raises:
            InputError: They refuse a value.
        """
        return self._arguments("specialize", Path(folder) / "specialists", overrides)

    def _arguments(self, part: str, folder: Path, overrides: Mapping[str, Any]) -> Any:
        options = {"seed": self.seed, **getattr(self, part), "output_dir": str(folder), **overrides}
        return build(part, options, f"{self.path}: {part}")


def _add_teachers(tasks: Mapping[str, Task], given: Mapping[str, Any], path: Path) -> None:
    """Teachers by task, which may also stand under their tasks."""
    for name, specs in given.items():
        where, name = f"{path}: teachers.{name}", str(name)
        if name not in tasks:
            raise InputError(f"{where}: no such task: {suggest(str(name), tasks)}")
        read = Task.from_dict({"teachers": specs}, where, folder=path.parent).teachers
        tasks[name].teachers = [*several(tasks[name].teachers), *read]


def _check_names(given: Mapping[Any, Any], where: str) -> None:
    """Raises:
    InputError: A task's name is no text in YAML: `off` and `null` are values.
    """
    for name in given:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise InputError(f"{where}: a task is called {name!r}: YAML takes it for a value; put the name in quotes")
        if not isinstance(name, str) and str(name) in given:
            raise InputError(f"{where}: '{name}' is there twice, as a number and in quotes; keep one of them")


def _mapping(value: Any, where: str, known: tuple[str, ...] | None = None) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: expected keys and values, got {type(value).__name__}")
    for key in value:
        if known is not None and key not in known:
            raise InputError(f"{where}: unknown key '{key}': {suggest(str(key), known)}")
    return dict(value)


def _pool(value: Any, path: Path) -> tuple[str, dict[str, list[str]], dict[str, Task]]:
    """Base, experts, and a published pool's tasks."""
    where = f"{path}: pool"
    if isinstance(value, str):
        published = read_published(resolve_path(value, path.parent))
        models = published.reference
        specs = {task: [expert.spec for expert in experts] for task, experts in models.experts.items()}
        return models.base.spec, specs, dict(published.tasks)
    pool = _mapping(value, where, ("base", "experts", "allow_base_mismatch"))
    for key in ("base", "experts"):
        if not pool.get(key):
            raise InputError(f"{where}.{key} is missing")
    listed = _mapping(pool["experts"], f"{where}.experts")
    _check_names(listed, f"{where}.experts")
    experts = {str(task): several(given) for task, given in listed.items()}
    for key, specs in {
        "base": [pool["base"]],
        **{f"experts.{task}": given for task, given in experts.items()},
    }.items():
        for spec in specs:
            if not isinstance(spec, str):
                more = "" if key == "base" else ", or a list of them"
                raise InputError(f"{where}.{key} must be a folder or a Hub id{more}, got {spec}")
    found = {task: [resolve_path(spec, path.parent) for spec in specs] for task, specs in experts.items()}
    return resolve_path(pool["base"], path.parent), found, {}
