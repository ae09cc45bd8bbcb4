"""Finding experts: the Hub's fine-tuned models of a base, those that fit."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from huggingface_hub import HfApi, ModelInfo

from ..core.errors import InputError
from ..core.tables import text_table
from ..core.threads import each
from ..hub.client import ask
from .download import size_text
from .fit import Fit
from .sources import INDEX_FILE, ModelSource


@dataclass
class Candidate:
    """A model that the Hub lists under a base.

    Args:
        id: Of the repo.
        revision: Its commit; none where it could not be read.
        task: A name for what it does: the end of the repo's name, or the data set's.
        datasets: That its card names.
        license: That its card states.
        downloads: Of the last month.
        bytes: Size of its weight files.
        refused: Why it does not fit; none where it does.
    """

    id: str
    revision: str | None
    task: str
    datasets: list[str]
    license: str | None
    downloads: int
    bytes: int
    refused: str | None


def discover(
    base: str,
    *,
    author: str | None = None,
    search: str | None = None,
    limit: int = 50,
    token: str | bool | None = None,
) -> tuple[ModelSource, list[Candidate]]:
    """The Hub's fine-tuned models of a base (its model tree), most downloaded first, each checked by its header.

    No weights are downloaded.

    Args:
        base: Hub id, with `@revision` if need be.
        author: Only this user's or organisation's.
        search: Only where the repo's name holds this.
        limit: How many are looked at.
        token: For private and gated repos.

    Returns:
        The base, pinned, and all candidates.

    Raises:
        InputError: The base cannot be found or is no known architecture.
    """
    source = ModelSource.resolve(base, token)
    if source.is_local:
        raise InputError(f"{base}: a folder has no model tree; give the base's Hub id")
    fit = Fit(source)
    fit.check(source)
    api = HfApi(token=token)
    found = ask(
        lambda: list(
            api.list_models(
                filter=f"base_model:finetune:{source.id}",
                author=author,
                search=search,
                sort="downloads",
                limit=limit,
                expand=["cardData", "downloads"],
            )
        ),
        source.id,
        attempts=1,  # the client repeats this one itself
    )
    candidates = each(lambda info: _look_at(info, fit, token), found, desc="Reading headers")
    _name_tasks(candidates, source.id)
    return source, candidates


def _look_at(info: ModelInfo, fit: Fit, token: str | bool | None) -> Candidate:
    card = info.card_data.to_dict() if info.card_data else {}
    candidate = Candidate(
        id=info.id,
        revision=None,
        task="",
        datasets=[str(name) for name in _as_list(card.get("datasets"))],
        license=card.get("license"),
        downloads=info.downloads or 0,
        bytes=0,
        refused=None,
    )
    try:
        source = ModelSource.resolve(info.id, token, patterns=["config.json", INDEX_FILE])
        candidate.revision, candidate.bytes = source.revision, sum(source.weights.values())
        fit.check(source)
    except InputError as error:
        candidate.refused = re.sub(rf"^{re.escape(info.id)}(@\w+)?: ", "", str(error))
    return candidate


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _name_tasks(candidates: list[Candidate], base: str) -> None:
    """Short names, different from each other."""
    taken: set[str] = set()
    for candidate in candidates:
        short = candidate.id.split("/")[-1].removeprefix(base.split("/")[-1])
        if short == candidate.id.split("/")[-1] and candidate.datasets:
            short = candidate.datasets[0].split("/")[-1]
        name = stem = re.sub(r"[^\w-]+", "-", short).strip("-_.") or "task"
        number = 2
        while name in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name)
        candidate.task = name


def as_text(candidates: list[Candidate]) -> str:
    """A table for people."""
    rows = [
        [c.task, c.id, ", ".join(c.datasets) or "-", c.license or "-", f"{c.downloads:,}", size_text(c.bytes)]
        for c in candidates
    ]
    return text_table(["task", "model", "data set", "license", "downloads", "size"], rows, left=4)


def as_json(base: ModelSource, candidates: list[Candidate]) -> str:
    """Everything, for programs: those that fit and those that do not, with the reason."""
    return json.dumps({"base": base.reference(), "candidates": [asdict(c) for c in candidates]}, indent=2)
