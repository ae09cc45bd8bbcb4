"""How a result was made, as a recipe: from the objects that made it, whether a file was there or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..adapter import MdftConfig
from ..cards.facts import recipe_part
from ..heads import Head
from ..pool import ModelPool
from ..tasks import Task


def recipe_of(
    pool: ModelPool,
    tasks: Mapping[str, Task],
    heads: Mapping[str, Head],
    config: MdftConfig,
    seed: int,
    meta: Mapping[str, Any] | None = None,
    specialize: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A recipe in full, with pinned revisions and every option that the result depends on; no folders, no secrets.

    Args:
        pool: The pool.
        tasks: Tasks by name.
        heads: Their heads.
        config: Config of the adapter.
        seed: Seed of the run.
        meta, specialize: Options of the phases, where they were done.
    """
    shown = pool.pinned().shown()
    adapter = {"granularity": config.granularity, "transform": config.transform}
    if config.init_coefficient is not None:
        adapter["init_coefficient"] = config.init_coefficient
    return {
        "pool": {
            "base": shown.base.spec,
            "experts": shown.by_task(lambda expert: expert.spec),
            **({"allow_base_mismatch": True} if pool.allow_base_mismatch else {}),
        },
        "tasks": {name: task.to_dict(heads[name].class_names) for name, task in tasks.items()},
        "adapter": adapter,
        **({} if meta is None else {"meta": beside(meta, seed)}),
        **({} if specialize is None else {"specialize": beside(specialize, seed)}),
        "seed": seed,
    }


def beside(options: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Options of a phase beside the seed of the run, which stands alone where the phase has no other."""
    return {name: value for name, value in options.items() if (name, value) != ("seed", seed)}


def continued(earlier: Mapping[str, Any] | None, now: Mapping[str, Any], tasks: Mapping[str, Task]) -> dict[str, Any]:
    """The recipe of a meta-model that was loaded, with what was done since.

    Args:
        earlier: Its own recipe.
        now: The recipe of what was done here.
        tasks: Tasks of here; only those with images replace what the earlier recipe has of them.
    """
    given = {name: now["tasks"][name] for name, task in tasks.items() if task.unlabelled is not None}
    # Whoever makes it again starts from models, not from what has pinned them.
    mismatch = recipe_part(earlier, "pool").get("allow_base_mismatch") is True
    before = recipe_part(earlier, "tasks")
    before = {name: recipe_part(before, name) for name in before}
    pool = now["pool"] | ({"allow_base_mismatch": True} if mismatch else {})
    return {**(earlier or {}), **now, "pool": pool, "tasks": before | given}
