"""The Hub's model tree: which models were fine-tuned from a base."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import HfApi

from .client import call_hub


@dataclass(frozen=True)
class ListedModel:
    """A model as the Hub lists it.

    Args:
        id: Repo id.
        downloads: Downloads in the last month.
        card: Metadata of its card.
    """

    id: str
    downloads: int
    card: dict[str, Any] = field(default_factory=dict)


RELATIONS = ("finetune", "adapter")
"""How models of a base that can be experts are related to it, in the Hub's words."""


def finetunes_of(
    base: str, *, author: str | None = None, search: str | None = None, limit: int = 50
) -> list[ListedModel]:
    """Models and adapters that the Hub lists as fine-tuned from a base, most downloaded first.

    Args:
        base: Repo id of the base.
        author: Only models of this user or organisation.
        search: Only models whose name holds this.
        limit: The most to list.

    Raises:
        HubError: The Hub refuses or cannot be reached.
    """
    found = [
        model
        for relation in RELATIONS
        for model in _listed(f"base_model:{relation}:{base}", base, author, search, limit)
    ]
    known = {model.id: model for model in sorted(found, key=lambda model: -model.downloads)}
    return list(known.values())[:limit]


def _listed(tag: str, base: str, author: str | None, search: str | None, limit: int) -> list[ListedModel]:
    api = HfApi()
    found = call_hub(
        lambda: list(
            api.list_models(
                filter=tag,
                author=author,
                search=search,
                sort="downloads",
                limit=limit,
                expand=["cardData", "downloads"],
            )
        ),
        base,
        attempts=1,  # the client repeats this one itself
    )
    return [
        ListedModel(info.id, info.downloads or 0, info.card_data.to_dict() if info.card_data else {}) for info in found
    ]
