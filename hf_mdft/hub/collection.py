"""Hub collections: models for people to look through."""

from __future__ import annotations

from collections.abc import Mapping

from huggingface_hub import HfApi

from .client import call_hub


LONGEST_TITLE = 60


def collect(notes: Mapping[str, str], title: str, *, private: bool = False) -> str:
    """Make a collection of models, or add what is missing to the one of that title.

    Args:
        notes: Note by repo id, in the collection's order. A collection holds no revisions: notes do.
        title: Title of the collection, at most `LONGEST_TITLE` characters.
        private: Whether others cannot see it.

    Returns:
        Its address.

    Raises:
        HubError: The Hub refuses.
    """
    api, safe = HfApi(), "the collection may hold a part of the models; the same command completes it"
    made = call_hub(
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
            call_hub(lambda add=add: api.add_collection_item(made.slug, **add), title, safe, writing=True)
        elif known.note != note:
            place = known.item_object_id
            call_hub(
                lambda place=place, note=note: api.update_collection_item(made.slug, place, note=note),
                title,
                safe,
                writing=True,
            )
    return made.url
