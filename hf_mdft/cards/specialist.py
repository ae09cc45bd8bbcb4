"""The card of a specialist."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from huggingface_hub import ModelCard

from ..core.reference import expert_names
from .facts import Difference, Measured, SpecialistFacts, Trust
from .markdown import data_link, escaped, literal, model_link, overlap_text
from .metadata import eval_result, hub_datasets, model_card, model_data
from .roster import ROSTER, VIEWS


SHOWN = (
    "base", "expert", "expert_views", "experts_mean", "experts_average", "experts_greedy", "ensemble",
    "ensemble_views", "meta",
    "specialist_ungated", "specialist", "specialist_views",
)  # fmt: skip
THIS_MODEL = {"specialist": "**this model**", "specialist_views": f"**this model**, {VIEWS} views"}
CHANCE = 0.05
"""p-value from which a difference may be chance."""
LONGEST_LIST = 20
"""Class names that are listed."""


def specialist_card(
    facts: SpecialistFacts,
    measured: Measured | None = None,
    *,
    vision_only: bool = False,
    figures: Mapping[str, str] | None = None,
) -> ModelCard:
    """Card of one specialist.

    Args:
        facts: How it was made.
        measured: Its accuracy, where labelled images were given.
        vision_only: The folder holds the vision tower alone.
        figures: Path within the folder, by caption.
    """
    meta, pool = facts.meta, facts.meta.pool.reference.shown()
    experts = {name: pool.named()[name] for name in expert_names(facts.task, len(pool.experts.get(facts.task, ())))}
    trust = facts.trust or Trust(facts.task)
    expert = experts.get(trust.expert)  # the one that the gate compared with
    # A task without an expert starts at the meta-model, which is made of all experts.
    origins = [expert] if expert and not facts.gate.improved else (experts or pool.named()).values()
    tag = "image-feature-extraction" if vision_only else meta.pipeline_tag
    accuracy = measured.accuracy if measured else {}
    results = [eval_result(facts.task, accuracy["specialist"], measured.data)] if "specialist" in accuracy else None
    unlabelled = meta.unlabelled.get(facts.task)
    data = model_data(
        [pool.base, *origins],
        "finetune" if len(origins) == 1 else "merge",
        model_name=f"{facts.task} specialist",
        library_name="transformers",
        pipeline_tag=tag,
        license=meta.pool.license.name,
        datasets=hub_datasets([unlabelled, measured and measured.data]),
        tags=["mdft", "model-merging", "label-free", "image-classification", "vision"],
        eval_results=results,
    )
    left_out = {"specialist_ungated"} if facts.gate.share == 1 or not facts.gate.trained else set()
    if len(experts) < 2:
        left_out |= {"experts_mean", "experts_average", "experts_greedy", "ensemble", "ensemble_views"}
    rows = {
        THIS_MODEL.get(model.name, model.card_label): (accuracy[model.name], model.passes_with(len(experts)))
        for model in ROSTER
        if model.name in SHOWN and model.name in accuracy and model.name not in left_out
    }
    trusted = {name: f", trusted {share:.0%}" for name, share in trust.weights.items()}
    others = [f"{escaped(name)}{share}" for name, share in trusted.items() if name not in experts]
    return model_card(
        "specialist.md",
        data,
        meta,
        figures or {},
        task=escaped(facts.task),
        gate=facts.gate,
        restorations=facts.restorations,
        measured=measured,
        vision_only=vision_only,
        features=facts.features,
        tower_loader=facts.tower_loader,
        expert=model_link(expert) if expert else None,
        experts=[f"{model_link(model)}{trusted.get(name, '')}" for name, model in experts.items()],
        others=others,
        taught_by=_taught_by(trust, experts),
        class_names=[escaped(name) for name in facts.class_names],
        longest=LONGEST_LIST,
        labels=literal(list(facts.class_names[:LONGEST_LIST])),
        prompt=literal(facts.template) if facts.template else None,
        pipeline_tag=tag,
        rows=rows,
        beside_views=_verdict(measured.beside_views) if measured and measured.beside_views else None,
        view_count=VIEWS,
        evaluated_on=data_link(measured.data) if measured else None,
        overlap=overlap_text(measured.overlap) if measured else None,
        trained_on=data_link(unlabelled),
        skipped=meta.skipped.get(facts.task),
        **_training(meta.recipe, escaped(trust.start) if expert else "meta-model"),
    )


def _taught_by(trust: Trust, experts: Collection[str]) -> str | None:
    """Whose soft targets the student learned from: those with a share of the trust. `None`: the meta-model's."""
    having = [name for name, share in trust.weights.items() if share] or experts
    others = [name for name in having if name not in experts]
    found = {
        "the experts" if len(experts) > 1 else "the expert": len(having) > len(others),
        "teachers from outside the pool": any(name.startswith("teacher ") for name in others),
        "experts of related tasks": any(name.startswith("related ") for name in others),
    }
    return " and of ".join(whose for whose, is_there in found.items() if is_there) or None


def _verdict(found: Difference) -> str:
    """What the comparison with the expert under test-time augmentation says, good or bad."""
    if found.difference == 0:
        return "Both are equally accurate."
    by_chance = ", which may be chance" if found.p_value >= CHANCE else ""
    if found.difference < 0:
        return f"**The expert with test-time augmentation is better than this model**{by_chance}."
    return f"This model is better{by_chance}."


def _training(recipe: Mapping[str, Any] | None, origin: str) -> dict[str, Any]:
    """What the card tells of phase 2, from the options that it was done with (the defaults, where none are known)."""
    options = (recipe or {}).get("specialize") or {}
    start = 0.0 if origin == "meta-model" else options.get("start", 0.0)
    between = f"the {origin} moved by {start:g} of the way to the meta-model"
    return {
        "origin": f"the {origin}",
        "start": f"the {origin}" if start == 0 else "the meta-model" if start == 1 else between,
        "distilled": options.get("distillation_weight", 1.0) > 0,
        "ensemble": "ensemble" in options.get("teacher", ["ensemble"]) and options.get("ensemble_weight", 0.0) > 0,
        "views": options.get("teacher_views", True),
        "some_restored": options.get("restored_share", 0.25) > 0,
        "averaged": options.get("ema_decay", 0.98) > 0,
        "gated": options.get("gate", True),
    }
