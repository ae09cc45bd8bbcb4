"""What every finished result is: a folder that can be opened, shown and pushed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub import CommitInfo

from ..core.errors import InputError
from ..core.registry import Registry
from ..hub import push_folder
from .layout import REPLACED, written_files


FORMS = {"vision-only": "a specialist", "folded": "a run's 'meta' folder"}
"""Other forms that results are pushed in, and what has them."""

RESULTS: Registry[type[Result]] = Registry("result")
"""By kind, as manifests name them."""


@dataclass(frozen=True)
class Result:
    """A result in a folder.

    Args:
        folder: Where it lies.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    """What people call it."""

    folder: Path

    @classmethod
    def read(cls, folder: Path, content: Mapping[str, Any]) -> Result:
        """The result in a folder, checked.

        Args:
            folder: Where it lies.
            content: What its manifest holds.

        Raises:
            InputError: It is damaged.
        """
        raise NotImplementedError

    def forms(self) -> dict[str, Callable[[Path], None]]:
        """Other forms that it can be pushed in, by name; each is a function that writes a folder."""
        return {}

    def push(self, repo_id: str, form: str | None = None, **options: Any) -> CommitInfo:
        """Push it to a Hub repo in one commit.

        Args:
            repo_id: `"owner/name"`.
            form: One of `forms()`; `None` is its files as they are.
            options: See `hf_mdft.hub.push_folder`.

        Raises:
            InputError: It has no such form, or the Hub refuses.
        """
        if form is not None and form not in self.forms():
            raise InputError(f"{self.folder}: a {self.label}; --{form} is for {FORMS.get(form, 'no result')}")
        if form is not None:
            return push_result(self.forms()[form], repo_id, **options)
        return push_result(self.folder, repo_id, files=self.files(), **options)

    def files(self) -> list[str]:
        """Its files, as its manifest lists them: what else lies in the folder is never pushed."""
        return list(written_files(self.folder))

    def __str__(self) -> str:
        return f"{self.label} in {self.folder}"


def push_result(source: Path | Callable[[Path], None], repo_id: str, **options: Any) -> CommitInfo:
    """Push a result's folder, or a function that writes one; what an earlier push left is replaced as a whole.

    Args:
        source: Folder or function.
        repo_id: `"owner/name"`.
        options: See `hf_mdft.hub.push_folder`.

    Raises:
        InputError: The Hub refuses.
    """
    return push_folder(source, repo_id, replaces=REPLACED, **options)
