"""A model, or a pool of them, and what pins it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from .errors import InputError
from .typed import expect


COMMIT = re.compile(r"[0-9a-f]{40}")
REPO_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


@dataclass(frozen=True)
class ModelReference:
    """A folder or a Hub repo, and the revision that pins it.

    Args:
        id: Hub repo id, or absolute path of a folder.
        revision: Branch, tag or commit of a repo; `sha256:...` over a folder's weights and config. `None` until it is
            resolved.

    Example:

        >>> ModelReference.parse("lab/clip_mnist@main")
        ModelReference(id='lab/clip_mnist', revision='main')
    """

    id: str
    revision: str | None = None

    @classmethod
    def parse(cls, spec: str | Path | ModelReference, revision: str | None = None) -> ModelReference:
        """From a folder, `owner/name` or `owner/name@revision`.

        Args:
            spec: A folder that exists comes first, whatever its name looks like.
            revision: Revision of a repo; goes before the one in `spec`.

        Raises:
            InputError: It looks like a folder, and there is none.
        """
        if isinstance(spec, ModelReference):
            return cls(spec.id, revision or spec.revision)
        path = Path(os.path.expanduser(expect(spec, (str, os.PathLike), "a model")))
        if path.is_dir():
            return cls(str(path.resolve()))
        if path.is_absolute() or str(spec).startswith((".", "~")):
            raise InputError(f"{spec}: no such folder; give a model folder or a Hub id such as owner/name@revision")
        repo_id, _, named = str(spec).partition("@")
        return cls(repo_id, revision or named or None)

    @classmethod
    def from_dict(cls, value: Any, where: str) -> ModelReference:
        """What `to_dict` gave.

        Raises:
            InputError: It is no reference.
        """
        if not isinstance(value, Mapping) or not all(isinstance(value.get(key), str) for key in ("id", "revision")):
            raise InputError(f"{where}: expected 'id' and 'revision' of a model, got {str(value)[:80]}")
        return cls(value["id"], value["revision"])

    def to_dict(self) -> dict[str, Any]:
        """JSON form, enough to find the same model again."""
        return {"id": self.id, "revision": self.revision}

    def __str__(self) -> str:
        return self.id

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of a machine (this or another one), which others cannot find."""
        pinned = (self.revision or "").startswith("sha256:")
        return pinned or PurePosixPath(self.id).is_absolute() or PureWindowsPath(self.id).is_absolute()

    def shown(self) -> ModelReference:
        """The reference without where a folder lies, for everything that leaves this machine."""
        return ModelReference(self.name, self.revision)

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a commit of a repo, which never changes."""
        return not self.is_local and COMMIT.fullmatch(self.revision or "") is not None

    def is_same(self, other: ModelReference) -> bool:
        """Whether both are the same weights: the same commit of a repo, or the same fingerprint, wherever it lies."""
        if self.is_local or other.is_local:
            return self.revision is not None and self.revision == other.revision
        return self == other

    @property
    def name(self) -> str:
        """What others are shown: the Hub id, or the folder's name without where it lies."""
        return re.split(r"[/\\]", self.id.rstrip("/\\"))[-1] if self.is_local else self.id

    @property
    def spec(self) -> str:
        """As recipes write it. A folder stands alone: what pins it is in the pool's reference."""
        return self.id if self.is_local or self.revision is None else f"{self.id}@{self.revision}"

    @property
    def where(self) -> str:
        """As messages name it: the revision as far as people read it."""
        if self.is_local or self.revision is None:
            return self.id
        return f"{self.id}@{self.revision[:12] if self.is_commit else self.revision}"


def expert_names(task: str, count: int) -> list[str]:
    """Names of a task's experts: the task's own where there is one, else `task/1`, `task/2`, ..."""
    return [task] if count == 1 else [f"{task}/{number}" for number in range(1, count + 1)]


@dataclass(frozen=True)
class PoolReference:
    """A base model and its experts.

    Args:
        base: The base model.
        experts: Experts by task, none for a task without one (one alone, or `None`, is taken as well). Their order is
            the order of coefficients.
    """

    base: ModelReference
    experts: Mapping[str, tuple[ModelReference, ...] | ModelReference | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "experts", {task: tuple(several(given)) for task, given in self.experts.items()})

    @classmethod
    def from_dict(cls, value: Any, where: str) -> PoolReference:
        """What `to_dict` gave.

        Raises:
            InputError: It is no pool's reference.
        """
        if not isinstance(value, Mapping) or not isinstance(value.get("experts"), Mapping):
            raise InputError(f"{where}: expected 'base' and 'experts' of a pool, got {str(value)[:80]}")
        names = value.get("tasks", list(value["experts"]))
        if not isinstance(names, list) or sorted(map(str, names)) != sorted(map(str, value["experts"])):
            raise InputError(f"{where}: 'tasks' and 'experts' name different tasks")
        experts = {
            str(name): tuple(
                ModelReference.from_dict(model, f"{where}: expert of '{name}'")
                for model in several(value["experts"][name])
            )
            for name in names
        }
        return cls(ModelReference.from_dict(value.get("base"), f"{where}: base"), experts)

    def to_dict(self) -> dict[str, Any]:
        """JSON form: one expert stands alone, several in a list. The order of the tasks is stored by itself: PEFT
        sorts the keys of what it saves."""
        experts = self.by_task(ModelReference.to_dict)
        return {"base": self.base.to_dict(), "experts": experts, "tasks": list(self.experts)}

    def by_task(self, form: Callable[[ModelReference], Any]) -> dict[str, Any]:
        """The experts in some form, as files have them: one stands alone, several in a list, `None` is none."""
        return {task: alone_or_list([form(model) for model in models]) for task, models in self.experts.items()}

    def named(self) -> dict[str, ModelReference]:
        """Experts by their names; see `expert_names`."""
        return {
            name: model
            for task, models in self.experts.items()
            for name, model in zip(expert_names(task, len(models)), models, strict=True)
        }

    def shown(self) -> PoolReference:
        """The reference without where folders lie, for everything that leaves this machine."""
        shown = {task: tuple(model.shown() for model in models) for task, models in self.experts.items()}
        return PoolReference(self.base.shown(), shown)

    def models(self) -> list[tuple[str, ModelReference]]:
        """Every model with what it is in the pool, in words: the experts, then the base."""
        return [*((f"the expert of '{name}'", model) for name, model in self.named().items()), ("the base", self.base)]

    def local(self) -> list[str]:
        """Which of them are folders, in words."""
        return [name for name, model in self.models() if model.is_local]

    def differences(self, other: PoolReference) -> list[str]:
        """Which models are not the same in both, in words."""
        mine, theirs = dict(self.models()), dict(other.models())
        return [
            words for words in {**mine, **theirs}
            if words not in mine or words not in theirs or not mine[words].is_same(theirs[words])
        ]  # fmt: skip


def several(given: Any) -> list[Any]:
    """What is given for a task's experts, as a list: nothing, one alone, or several."""
    return [] if given is None else list(given) if isinstance(given, list | tuple) else [given]


def alone_or_list(values: Sequence[Any]) -> Any:
    """The way back: one value alone, several as a list, `None` for none."""
    return None if not values else values[0] if len(values) == 1 else list(values)
