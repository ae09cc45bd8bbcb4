"""A pool as a folder or Hub repo: what it refers to, not the weights themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cards.cards import is_hub_dataset, pool_card, public_dataset
from ..core.errors import InputError
from .sources import COMMIT, fetch_files


POOL_FILE = "mdft_pool.json"
SCHEMA = 1
REPO_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def write_published(
    reference: Mapping[str, Any],
    tasks: Mapping[str, Mapping[str, Any]],
    license: tuple[str | None, list[str]],
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
    pool_card(reference, tasks, license).save(folder / "README.md")


def _told(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a stranger's pool may say of a task: nothing that reads other files of this machine, or from elsewhere."""
    known = {
        key: options[key] for key in ("class_names", "templates", "image_column", "label_column") if key in options
    }
    if options.get("head") in ("zero_shot", "linear"):
        known["head"] = options["head"]
    for key in ("unlabelled", "evaluation"):
        if is_hub_dataset(options.get(key)):
            known[key] = public_dataset(options[key])
    return known


def read_published(source: str | Path, revision: str | None, token: str | bool | None) -> dict[str, Any]:
    """The content of a pool's manifest: `pool` (a reference) and `tasks` (options by name).

    Raises:
        InputError: It is no pool, or damaged.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        repo_id, _, named = str(source).partition("@")
        folder, _ = fetch_files(repo_id, revision or named or None, token, [POOL_FILE, "README.md"])
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
        reference, experts = content["pool"], content["pool"]["experts"]
        for pinned in [reference["base"], *filter(None, (experts[task] for task in reference["tasks"]))]:
            if not (REPO_ID.fullmatch(pinned["id"]) and COMMIT.fullmatch(pinned["revision"])):
                raise InputError(f"{source}: {POOL_FILE} names '{pinned['id']}', which is no Hub repo at a commit")
        tasks = {str(name): _told(options) for name, options in content["tasks"].items()}
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{source}: {POOL_FILE} is damaged ({type(error).__name__}: {error})") from error
    return {"pool": reference, "tasks": tasks}
