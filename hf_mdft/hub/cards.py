"""Model cards: complete, and true."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..pool import ModelSource
from ..versions import versions


TEMPLATES = Path(__file__).parent / "templates"


def specialist_card(
    task: str,
    reference: dict[str, Any],
    class_names: list[str],
    gate: dict[str, Any],
    facts: dict[str, Any],
    licence: str | None = None,
) -> ModelCard:
    """Card of one specialist.

    Args:
        task: Its name.
        reference: Of the pool.
        class_names: Of the head.
        gate: The gate's decision.
        facts: From evaluation: `accuracy` by model, `p_value`, `images`, `transductive`; may be empty.
        licence: Of the models that it is made from.
    """
    expert = reference["experts"].get(task)
    sources = [reference["base"], *([expert] if expert else [])]
    accuracy = facts.get("accuracy", {}).get("specialist")
    results = None
    if accuracy is not None:
        results = [
            EvalResult(
                task_type="image-classification",
                dataset_type=task,
                dataset_name=task,
                metric_type="accuracy",
                metric_value=round(accuracy, 4),
            )
        ]
    data = ModelCardData(
        model_name=f"{task} specialist",
        library_name="transformers",
        pipeline_tag=facts.get("pipeline_tag"),
        base_model=_hub_ids(sources),
        base_model_relation="finetune" if _hub_ids(sources) else None,
        license=licence,
        tags=["mdft", "model-merging", "label-free", "image-classification"],
        metrics=["accuracy"],
        eval_results=results,
    )
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATES / "specialist.md"),
        task=_plain(task),
        base=_show(reference["base"]),
        expert=_show(expert) if expert else None,
        pool={_plain(name): _show(source) for name, source in reference["experts"].items() if source},
        class_names=[_plain(name) for name in class_names],
        gate=gate,
        facts=facts,
        versions=versions(),
    )


def meta_card(
    reference: dict[str, Any], config: dict[str, Any], facts: dict[str, Any], licence: str | None = None
) -> ModelCard:
    """Card of a meta-model's adapter.

    Args:
        reference: Of the pool.
        config: Granularity and transform.
        facts: From evaluation: `accuracy` by model and task; may be empty.
        licence: Of the pool.
    """
    data = ModelCardData(
        library_name="peft",
        base_model=_hub_ids([reference["base"]]),
        base_model_relation="adapter" if _hub_ids([reference["base"]]) else None,
        license=licence,
        tags=["mdft", "merge", "model-merging", "label-free"],
    )
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATES / "meta.md"),
        base=_show(reference["base"]),
        pool={_plain(name): _show(source) for name, source in reference["experts"].items() if source},
        config=config,
        facts=facts,
        versions=versions(),
    )


def _hub_ids(sources: list[dict[str, str]]) -> list[str] | None:
    """Ids that others can look up; a folder of this machine is none."""
    return [source["id"] for source in sources if not Path(source["id"]).is_absolute()] or None


def _show(source: dict[str, str]) -> str:
    if Path(source["id"]).is_absolute():
        return f"`{Path(source['id']).name}` (a local folder, weights `{source['revision'][:19]}`)"
    return f"[{source['id']}](https://huggingface.co/{source['id']}/tree/{source['revision']})"


def _plain(text: str) -> str:
    """User-supplied text without what Markdown or HTML would read as markup."""
    return "".join(f"\\{char}" if char in r"\`*_[]<>|#{}" else char for char in " ".join(str(text).split()))


def shared_licence(sources: Iterable[ModelSource]) -> str | None:
    """The licence that the models' cards state: the same one, `other` where they differ, none where none is stated."""
    licences = set()
    for source in sources:
        card = source.folder / "README.md"
        if card.is_file():
            with contextlib.suppress(ValueError):  # a card without readable metadata states nothing
                licences.add(ModelCard.load(card).data.to_dict().get("license"))
    licences.discard(None)
    return licences.pop() if len(licences) == 1 else "other" if licences else None
