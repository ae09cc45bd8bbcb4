"""What every finished result is: a folder that can be opened, shown and pushed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub import CommitInfo, ModelCard

from ..cards import Measured, eval_results_file
from ..core.errors import InputError
from ..core.json_files import write_json
from ..core.registry import Registry
from ..core.typed import checked
from ..hub import push_folder
from .layout import CARD, EVAL_RESULTS, MANIFEST, REPLACED, files_of


SCHEMA = 2
FORMS = {"vision-only": "a specialist", "folded": "a run's 'meta' folder"}
"""Other forms that results are pushed in, and what has them."""

NOTE = "hf_mdft: no labels were used but for this evaluation"

RESULTS: Registry[type[Result]] = Registry("result")
"""By kind, as manifests name them."""


@dataclass(frozen=True)
class Result:
    """A result in a folder.

    Args:
        folder: Where it lies.
        content: Its manifest: facts of its kind, and what was measured.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    """What people call it."""

    folder: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path, content: Mapping[str, Any]) -> Result:
        """The result in a folder, checked.

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
            form: One of `forms()`; `None` is the folder as it is.
            options: See `hf_mdft.hub.push_folder`.

        Raises:
            InputError: It has no such form, or the Hub refuses.
        """
        if form is not None and form not in self.forms():
            raise InputError(
                f"{self.folder}: a {self.label}; --{form} is for {FORMS.get(form, 'nothing that exists')}"
            )
        return push_folder(self.forms()[form] if form else self.folder, repo_id, replaces=REPLACED, **options)

    def __str__(self) -> str:
        return f"{self.label} in {self.folder}"


def finish_folder(
    folder: Path, kind: type[Result], content: Mapping[str, Any], card: ModelCard, measured: Mapping[str, Measured]
) -> None:
    """Write what stands beside the model's files: results in the Hub's form, card, and the manifest, last.

    Args:
        folder: Holds the model's files and figures.
        kind: Kind of the result.
        content: What its manifest holds.
        card: Its card.
        measured: Accuracy of this model (under the name `"this"`) by task.
    """
    values = {task: (found.accuracy["this"], found.data) for task, found in measured.items()}
    results = eval_results_file(values, NOTE)
    if results:
        (folder / EVAL_RESULTS).parent.mkdir(exist_ok=True)
        (folder / EVAL_RESULTS).write_text(results, encoding="utf-8")
    card.save(folder / CARD)
    files = [name for name in files_of(folder) if name != MANIFEST]
    write_json(folder / MANIFEST, {"schema": SCHEMA, "kind": kind.name, **content, "files": files})


def measured_of(content: Mapping[str, Any], where: str) -> dict[str, Measured]:
    """What a manifest holds of the measurements, by task.

    Raises:
        InputError: It is damaged.
    """
    return checked(content.get("measured", {}), dict[str, Measured], f"{where}: measured")
