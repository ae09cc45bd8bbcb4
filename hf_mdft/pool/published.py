"""A pool as a folder or Hub repo: what it refers to and what is known of its tasks, not the weights themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..cards import PoolFacts, pool_card
from ..cards.licenses import CombinedLicense
from ..core.errors import InputError
from ..core.reference import REPO_ID, ModelReference, PoolReference
from ..hub.download import fetch_files
from ..tasks import Task


POOL_FILE = "mdft_pool.json"
CARD_FILE = "README.md"
SCHEMA = 1


@dataclass(frozen=True)
class PublishedPool:
    """What a pool's manifest holds.

    Args:
        reference: Base and experts, each at a commit of the Hub.
        tasks: Tasks by name, as far as they are described: class names, prompts, columns, data sets of the Hub.

    Raises:
        InputError: A model is no Hub repo at a commit.
    """

    reference: PoolReference
    tasks: Mapping[str, Task] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, model in self.reference.models():
            if not model.is_commit or not REPO_ID.fullmatch(model.id):
                raise InputError(
                    f"{model} ({name}) is no Hub repo at a commit, so it cannot be part of a published pool; push the "
                    "model to the Hub first, and name its repo in the pool"
                )

    def options(self) -> dict[str, dict[str, Any]]:
        """What others may read of the tasks, by name."""
        shared = {name: Task.from_dict(task.to_dict(), name, foreign=True) for name, task in self.tasks.items()}
        return {name: task.to_dict() for name, task in shared.items()}

    def to_dict(self) -> dict[str, Any]:
        """The manifest."""
        return {"schema": SCHEMA, "pool": self.reference.to_dict(), "tasks": self.options()}


def read_published(source: str | Path, revision: str | None = None, token: str | bool | None = None) -> PublishedPool:
    """A published pool from a folder or the Hub.

    Raises:
        InputError: It is no pool, or damaged.
    """
    reference = ModelReference.parse(source, revision)
    if reference.is_local:
        folder = Path(reference.id)
    else:
        folder, _ = fetch_files(reference, [POOL_FILE, CARD_FILE], token)
    if not (folder / POOL_FILE).is_file():
        raise InputError(
            f"{source}: no {POOL_FILE}, so it is no pool; give a pool that 'hf-mdft pool push' has written, or the "
            "pool's base and experts"
        )
    where = f"{source}: {POOL_FILE}"
    try:
        content = json.loads((folder / POOL_FILE).read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise InputError(f"{where} has schema {content['schema']}, newer than this hf-mdft: upgrade")
        tasks = {
            str(name): Task.from_dict(options, f"{where}: tasks.{name}", foreign=True)
            for name, options in content["tasks"].items()
        }
        return PublishedPool(PoolReference.from_dict(content["pool"], where), tasks)
    except InputError as error:
        message = str(error)
        raise InputError(message if message.startswith(str(source)) else f"{where}: {message}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where} is damaged ({type(error).__name__}: {error})") from error


def write_published(pool: PublishedPool, license: CombinedLicense, folder: Path) -> None:
    """Write manifest and card."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(pool.to_dict(), indent=2, ensure_ascii=False)
    (folder / POOL_FILE).write_text(f"{text}\n", encoding="utf-8")
    pool_card(PoolFacts(pool.reference, license), pool.options()).save(folder / CARD_FILE)
