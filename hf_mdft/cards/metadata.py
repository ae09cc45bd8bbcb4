"""Metadata of cards, as the Hub reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

from ..core.data_reference import DataReference
from ..core.reference import ModelReference
from ..hub.push import PLACEHOLDER
from .facts import MetaFacts, PoolFacts
from .markdown import TEMPLATES, escaped, fenced, model_link, recipe_text, render


def model_data(models: Iterable[ModelReference], relation: str, **fields: Any) -> ModelCardData:
    """Metadata of a model.

    Args:
        models: Models that it was made from; folders are left out, for others cannot look them up.
        relation: Their relation to it: `finetune`, `adapter` or `merge`.
        fields: Further keys; empty ones are left out.
    """
    ids = list(dict.fromkeys(model.id for model in models if not model.is_local)) or None
    known = {name: value for name, value in fields.items() if value}
    if "eval_results" in known:
        known["metrics"] = ["accuracy"]
    return ModelCardData(base_model=ids, base_model_relation=relation if ids else None, **known)


def eval_result(task: str, accuracy: float, data: DataReference | None) -> EvalResult:
    """One result in the card's `model-index`."""
    known = data if data is not None and data.on_hub else DataReference(task)
    return EvalResult(
        task_type="image-classification",
        dataset_type=known.path,
        dataset_name=task,
        dataset_config=known.name,
        dataset_split=known.split,
        dataset_revision=known.revision,
        metric_type="accuracy",
        metric_value=round(accuracy, 4),
    )


def eval_results_file(values: Mapping[str, tuple[float, DataReference | None]], note: str) -> str | None:
    """Content of the Hub's newer form beside the card's `model-index`: results on datasets of the Hub; `None` where
    there are none.

    Args:
        values: Accuracy from 0 to 1 and data set, by task.
        note: How they were measured.
    """
    entries = [
        EvalResultEntry(data.path, str(data.name or "default"), round(value, 4), data.revision, notes=note)
        for value, data in values.values()
        if data is not None and data.on_hub
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False) if entries else None


def hub_datasets(references: Iterable[DataReference | None]) -> list[str]:
    """Ids of data sets that others can find."""
    return list(dict.fromkeys(data.path for data in references if data is not None and data.on_hub))


def model_card(
    template: str, data: ModelCardData, meta: MetaFacts, figures: Mapping[str, str], **words: Any
) -> ModelCard:
    """A card of a result: what all of them show.

    Args:
        template: File of the template.
        data: Metadata.
        meta: The meta-model that it is, or was made with.
        figures: Path within the folder, by caption.
        words: What this template needs besides.
    """
    return card_of(
        template,
        data,
        meta.pool,
        meta=meta,
        recipe=recipe_text(meta.recipe) if meta.recipe else None,
        figures={escaped(caption): path for caption, path in figures.items()},
        versions=meta.versions,
        citation=fenced((TEMPLATES / "citation.bib").read_text(encoding="utf-8")),
        **words,
    )


def card_of(template: str, data: ModelCardData, pool: PoolFacts, **words: Any) -> ModelCard:
    """A card with what every template needs of its pool."""
    reference = pool.reference.shown()
    experts = {
        escaped(task): ", ".join(map(model_link, models)) or "no expert" for task, models in reference.experts.items()
    }
    return ModelCard(
        render(
            template,
            card_data=data.to_yaml(),
            placeholder=PLACEHOLDER,
            base=model_link(reference.base),
            pool=experts,
            teachers={
                escaped(task): ", ".join(model_link(model.shown()) for model in models)
                for task, models in pool.teachers.items()
            },
            local=[escaped(name) for name in reference.local()],
            problems=[escaped(problem) for problem in pool.license.problems],
            **words,
        )
    )
