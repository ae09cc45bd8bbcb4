"""Finding experts: the Hub's fine-tuned models of a base, those that fit."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from peft.utils import CONFIG_NAME

from ..core.errors import InputError
from ..core.reference import ModelReference
from ..core.tables import text_table
from ..core.threads import each
from ..hub.model_tree import ListedModel, finetunes_of
from .download import size_text
from .fit import Fit
from .source import ModelSource
from .weight_files import INDEX_FILE


@dataclass(frozen=True)
class Candidate:
    """A model that the Hub lists under a base.

    Args:
        reference: The repo at its commit; without a revision where it could not be read.
        task: A name for what it does: the end of the repo's name, or the data set's.
        datasets: Data sets that its card names.
        license: License that its card states.
        downloads: Downloads in the last month.
        bytes: Size of its weight files.
        refused: Why it does not fit; `None` where it does.
    """

    reference: ModelReference
    task: str
    datasets: tuple[str, ...]
    license: str | None
    downloads: int
    bytes: int
    refused: str | None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**self.reference.to_dict(), **{k: v for k, v in asdict(self).items() if k != "reference"}}


def discover(
    base: str, *, author: str | None = None, search: str | None = None, limit: int = 50
) -> tuple[ModelReference, list[Candidate]]:
    """The Hub's fine-tuned models of a base (its model tree), most downloaded first, each checked by its header.

    No weights are downloaded.

    Args:
        base: Hub id, with `@revision` if need be.
        author: Only models of this user or organisation.
        search: Only models whose name holds this.
        limit: The most to look at.

    Returns:
        The base, pinned, and all candidates.

    Raises:
        InputError: The base cannot be found or is no known architecture.
    """
    source = ModelSource.resolve(base)
    if source.reference.is_local:
        raise InputError(f"{base}: a folder has no model tree; give the base's Hub id")
    Fit(source).check(source)
    listed = finetunes_of(source.reference.id, author=author, search=search, limit=limit)
    names = _short_names(listed, source.reference.id)
    found = each(lambda pair: _look_at(*pair, source), list(zip(listed, names, strict=True)), desc="Reading headers")
    return source.reference, found


def _look_at(listed: ListedModel, task: str, base: ModelSource) -> Candidate:
    reference, size, refused = ModelReference(listed.id), 0, None
    try:
        source = ModelSource.resolve(listed.id, patterns=["config.json", CONFIG_NAME, INDEX_FILE], adapters=True)
        reference, size = source.reference, sum(source.weights.values())
        Fit(base, [source]).check(source)
    except InputError as error:
        refused = re.sub(rf"^{re.escape(listed.id)}(@\w+)?: ", "", str(error))
    return Candidate(reference, task, _datasets(listed), listed.card.get("license"), listed.downloads, size, refused)


def _datasets(listed: ListedModel) -> tuple[str, ...]:
    named = listed.card.get("datasets")
    return tuple(map(str, named if isinstance(named, list) else [] if named is None else [named]))


def _short_names(listed: list[ListedModel], base: str) -> list[str]:
    """Names of tasks, different from each other."""
    taken: list[str] = []
    for model in listed:
        whole = model.id.split("/")[-1]
        short = whole.removeprefix(base.split("/")[-1])
        if short == whole and _datasets(model):
            short = _datasets(model)[0].split("/")[-1]
        name = stem = re.sub(r"[^\w-]+", "-", short).strip("-_.") or "task"
        number = 2
        while name in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.append(name)
    return taken


def by_data_set(candidates: list[Candidate]) -> list[list[Candidate]]:
    """Groups of models whose cards name the same data set first, in the order of each group's first model; those that
    name none stand alone."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        key = candidate.datasets[0] if candidate.datasets else f"\0{candidate.reference.id}"
        groups.setdefault(key, []).append(candidate)
    return list(groups.values())


def as_text(candidates: list[Candidate]) -> str:
    """A table for people; models for one data set stand together, as experts of one task."""
    rows = [
        [
            group[0].task,
            c.reference.id,
            ", ".join(c.datasets) or "-",
            c.license or "-",
            f"{c.downloads:,}",
            size_text(c.bytes),
        ]
        for group in by_data_set(candidates)
        for c in group
    ]
    return text_table(["task", "model", "data set", "license", "downloads", "size"], rows, left=4)


def as_json(base: ModelReference, candidates: list[Candidate]) -> str:
    """Everything, for programs: those that fit and those that do not, with the reason."""
    return json.dumps({"base": base.to_dict(), "candidates": [c.to_dict() for c in candidates]}, indent=2)
