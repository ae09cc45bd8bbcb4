"""A pool as a folder or Hub repo: what it refers to, not the weights themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..hub.cards import pool_card
from .sources import fetch_files


POOL_FILE = "mdft_pool.json"
SCHEMA = 1


def write_published(
    reference: Mapping[str, Any],
    tasks: Mapping[str, Mapping[str, Any]],
    licence: tuple[str | None, list[str]],
    folder: Path,
) -> None:
    """Write manifest and card.

    Raises:
        InputError: A model is a folder of this machine, so others could not find it.
    """
    for task, source in [("base", reference["base"]), *reference["experts"].items()]:
        if source and Path(source["id"]).is_absolute():
            raise InputError(
                f"{source['id']} ({task}): a folder of this machine cannot be part of a published pool; push the "
                "model to the Hub first, and name its repo in the pool"
            )
    folder.mkdir(parents=True, exist_ok=True)
    content = {"schema": SCHEMA, "pool": dict(reference), "tasks": {name: dict(tasks[name]) for name in tasks}}
    (folder / POOL_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    pool_card(reference, tasks, licence).save(folder / "README.md")


def read_published(source: str | Path, revision: str | None, token: str | bool | None) -> dict[str, Any]:
    """The content of a pool's manifest: `pool` (a reference) and `tasks` (options by name).

    Raises:
        InputError: It is no pool, or damaged.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        repo_id, _, named = str(source).partition("@")
        folder, sizes = fetch_files(repo_id, revision or named or None, token, [POOL_FILE, "README.md"])
    if not (folder / POOL_FILE).is_file():
        raise InputError(
            f"{source}: no {POOL_FILE}, so it is no pool; give a pool that 'hf-mdft pool push' has written, or the "
            "pool's base and experts"
        )
    try:
        content = json.loads((folder / POOL_FILE).read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise InputError(
                f"{source}: schema {content['schema']} of {POOL_FILE} is newer than this hf-mdft: upgrade"
            )
        reference = content["pool"]
        for pinned in [reference["base"], *filter(None, (reference["experts"][task] for task in reference["tasks"]))]:
            if Path(str(pinned["id"])).is_absolute() or not isinstance(pinned["revision"], str):
                raise InputError(f"{source}: {POOL_FILE} names '{pinned['id']}', which is no Hub repo")
        tasks = {str(name): dict(options) for name, options in content["tasks"].items()}
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{source}: {POOL_FILE} is damaged ({type(error).__name__}: {error})") from error
    return {"pool": reference, "tasks": tasks}
