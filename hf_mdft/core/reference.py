"""A model, or a pool of them, and what pins it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from .errors import InputError


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
        path = Path(spec).expanduser()
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


@dataclass(frozen=True)
class PoolReference:
    """A base model and its experts.

    Args:
        base: The base model.
        experts: Expert by task, `None` for a task without one. Their order is the order of coefficients.
    """

    base: ModelReference
    experts: Mapping[str, ModelReference | None] = field(default_factory=dict)

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
        experts = {str(name): value["experts"][name] for name in names}
        return cls(
            ModelReference.from_dict(value.get("base"), f"{where}: base"),
            {
                name: None if found is None else ModelReference.from_dict(found, f"{where}: expert of '{name}'")
                for name, found in experts.items()
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form. The order of the tasks is stored by itself: PEFT sorts the keys of what it saves."""
        experts = {task: expert and expert.to_dict() for task, expert in self.experts.items()}
        return {"base": self.base.to_dict(), "experts": experts, "tasks": list(self.experts)}

    def shown(self) -> PoolReference:
        """The reference without where folders lie, for everything that leaves this machine."""
        return PoolReference(self.base.shown(), {t: e and e.shown() for t, e in self.experts.items()})

    def models(self) -> list[tuple[str, ModelReference]]:
        """Every model with what it is in the pool, in words: the experts, then the base."""
        experts = [(f"the expert of '{task}'", expert) for task, expert in self.experts.items() if expert]
        return [*experts, ("the base", self.base)]

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
