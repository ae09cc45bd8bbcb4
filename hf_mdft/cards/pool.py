"""The card of a published pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ..core.data_reference import DataReference
from .facts import PoolFacts
from .markdown import data_link, escaped
from .metadata import card_of, hub_datasets


def pool_card(pool: PoolFacts, tasks: Mapping[str, Mapping[str, Any]]) -> ModelCard:
    """Card of a published pool.

    Args:
        pool: The pool.
        tasks: Options of its tasks, as others may read them.
    """
    shown = {task: DataReference.from_dict(options.get("unlabelled")) for task, options in tasks.items()}
    data = ModelCardData(
        # No `base_model`: the Hub would list the pool, which has no weights, as a fine-tuned model of each.
        library_name="hf_mdft",
        license=pool.license.name,
        datasets=hub_datasets(shown.values()) or None,
        tags=["mdft", "mdft-pool", "model-merging", "vision"],
    )
    described = {
        escaped(name): {
            "classes": [escaped(c) for c in options.get("class_names") or []],
            "templates": [escaped(t) for t in _as_list(options.get("templates"))],
            "unlabelled": data_link(shown[name]),
        }
        for name, options in tasks.items()
    }
    return card_of("pool.md", data, pool, described=described)


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]
