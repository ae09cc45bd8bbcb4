"""The card of a meta-model."""

from __future__ import annotations

from collections.abc import Mapping

from huggingface_hub import ModelCard

from .facts import Measured, MetaFacts
from .markdown import data_link, escaped, literal, overlap_text
from .metadata import eval_result, hub_datasets, model_card, model_data
from .roster import ROSTER


ROW_LABELS = {"meta": "**this model**", "specialist": "specialists made with it"}


def meta_card(
    facts: MetaFacts,
    measured: Mapping[str, Measured] | None = None,
    average: Mapping[str, float] | None = None,
    *,
    folded: bool = False,
    figures: Mapping[str, str] | None = None,
) -> ModelCard:
    """Card of a meta-model: the adapter, or the folded model.

    Args:
        facts: How it was made.
        measured: Accuracy by task, where labelled images were given.
        average: Average accuracy by model.
        folded: The folder holds the combined weights as a plain model.
        figures: Path within the folder, by caption.
    """
    measured, average = measured or {}, average or {}
    pool = facts.pool.reference.shown()
    results = [
        eval_result(task, found.accuracy["meta"], found.data)
        for task, found in measured.items()
        if "meta" in found.accuracy
    ]
    data = model_data(
        [pool.base, *pool.named().values()],
        "merge" if folded else "adapter",
        model_name="meta-model" if results else None,
        library_name="transformers" if folded else "peft",
        pipeline_tag=facts.pipeline_tag if folded else None,
        license=facts.pool.license.name,
        datasets=hub_datasets([*facts.unlabelled.values(), *(found.data for found in measured.values())]),
        tags=["mdft", "merge", "model-merging", "label-free", "vision"],
        eval_results=results or None,
    )
    rows = {}
    for model in ROSTER:
        by_task = [measured[task].accuracy.get(model.name) if task in measured else None for task in facts.tasks]
        if model.on_meta_card and any(value is not None for value in by_task):
            label = ROW_LABELS.get(model.name, model.card_label)
            most = max(map(len, pool.experts.values()), default=1)
            rows[label] = ([*by_task, average.get(model.name)], model.passes_with(most))
    return model_card(
        "meta.md",
        data,
        facts,
        figures or {},
        folded=folded,
        base_id=literal(pool.base.id),
        base_revision=None if pool.base.is_local else pool.base.revision,
        names=[escaped(task) for task in facts.tasks],
        rows=rows,
        trained_heads=[escaped(task) for task in facts.trained_heads],
        skipped={escaped(task): count for task, count in facts.skipped.items()},
        kept={escaped(task): shares for task, shares in facts.kept.items()},
        evaluated_on={
            escaped(task): {
                "on": None if found.data is None or found.data.count is not None else data_link(found.data),
                "images": found.images,
                "overlap": overlap_text(found.overlap),
            }
            for task, found in measured.items()
        },
    )
