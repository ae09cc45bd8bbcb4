"""A pool's models in a Hub collection, for people to look through."""

from __future__ import annotations

from huggingface_hub import HfApi

from ..hub.client import ask
from .manifest import ModelPool


LONGEST_TITLE = 60


def collect(
    pool: ModelPool, pool_repo: str | None, title: str, *, private: bool = False, token: str | bool | None = None
) -> str:
    """Make a collection of a pool's base and experts, or add what is missing to the one of that title.

    A collection knows no revisions: they are in the notes, and the pool's own repo pins them.

    Args:
        pool: All of its models lie on the Hub.
        pool_repo: The published pool, which becomes the first item.
        title: Of the collection, at most `LONGEST_TITLE` characters.
        private: Whether others can see it.
        token: With write access.

    Returns:
        Its address.

    Raises:
        InputError: The Hub refuses.
    """
    api, safe = HfApi(token=token), "the collection may hold a part of the pool; the same command completes it"
    notes = {pool_repo: "The pool: base and experts at pinned revisions"} if pool_repo else {}
    notes[pool.base.id] = f"base, at {pool.base.revision}"
    notes |= {source.id: f"expert for {task}, at {source.revision}" for task, source in pool.experts.items()}
    made = ask(
        lambda: api.create_collection(title, description="A pool for hf_mdft", private=private, exists_ok=True),
        title,
        "nothing was made",
        writing=True,
    )
    there = {item.item_id: item for item in made.items}
    for model, note in notes.items():
        known = there.get(model)
        if known is None:
            add = {"item_id": model, "item_type": "model", "note": note, "exists_ok": True}
            ask(lambda add=add: api.add_collection_item(made.slug, **add), title, safe, writing=True)
        elif known.note != note:
            place = known.item_object_id
            ask(
                lambda place=place, note=note: api.update_collection_item(made.slug, place, note=note),
                title,
                safe,
                writing=True,
            )
    return made.url
