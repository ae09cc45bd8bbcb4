"""A pool's models in a Hub collection, for people to look through."""

from __future__ import annotations

from huggingface_hub import HfApi

from ..hub.client import ask
from .manifest import ModelPool


def collect(
    pool: ModelPool, pool_repo: str | None, title: str, *, private: bool = False, token: str | bool | None = None
) -> str:
    """Make a collection of a pool's base and experts, or add what is missing to the one of that title.

    A collection knows no revisions: they are in the notes, and the pool's own repo pins them.

    Args:
        pool: All of its models lie on the Hub.
        pool_repo: The published pool, which becomes the first item.
        title: Of the collection, at most 60 characters.
        private: Whether others can see it.
        token: With write access.

    Returns:
        Its address.

    Raises:
        InputError: The Hub refuses.
    """
    api, safe = HfApi(token=token), "the collection may hold a part of the pool; the same command completes it"

    def add(slug: str, model: str, note: str) -> None:
        ask(
            lambda: api.add_collection_item(slug, model, "model", note=note, exists_ok=True), title, safe, writing=True
        )

    made = ask(
        lambda: api.create_collection(title, description="A pool for hf_mdft", private=private, exists_ok=True),
        title,
        "nothing was made",
        writing=True,
    )
    if pool_repo:
        add(made.slug, pool_repo, "The pool: base and experts at pinned revisions")
    add(made.slug, pool.base.id, f"base, at {pool.base.revision}")
    for task, source in pool.experts.items():
        add(made.slug, source.id, f"expert for {task}, at {source.revision}")
    return made.url
