"""Model cards: complete, and true; made of JSON-able facts, so that a saved result can tell its story again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

from ..core.versions import versions


TEMPLATES = Path(__file__).parent / "templates"
PLACEHOLDER = "OWNER/NAME"
"""Stands for the repo's id until it is known: a push puts it in."""

EVAL_RESULTS = ".eval_results/mdft.yaml"
NAMES = {
    "base": "base model",
    "expert": "expert",
    "weight_average": "weight average of the pool",
    "task_arithmetic": "task arithmetic",
    "meta": "meta-model",
    "specialist_ungated": "candidate that the gate refused",
    "specialist": "**this model**",
}


def specialist_card(task: str, facts: Mapping[str, Any]) -> ModelCard:
    """Card of one specialist.

    Args:
        task: Its name.
        facts: `pool` (reference), `class_names`, `gate`; and where they are known: `accuracy` by model, `images`,
            `overlap` (share of them that is among the unlabelled), `difference`, `p_value`, `evaluation` (arguments of
            `load_dataset`), `unlabelled` (the same), `template`, `recipe`, `license`, `license_problems`,
            `pipeline_tag`, `features` (where the tower's output holds them), `vision_only`, `figures` (by caption),
            `versions`.
    """
    pool = facts["pool"]
    expert = pool["experts"].get(task)
    # A task without an expert starts at the meta-model, which is made of all experts.
    origins = [expert] if expert else [source for source in pool["experts"].values() if source]
    tag = "image-feature-extraction" if facts.get("vision_only") else facts.get("pipeline_tag")
    results = [_result(task, facts)] if "specialist" in facts.get("accuracy", {}) else None
    data = _metadata(
        [pool["base"], *origins],
        "finetune" if expert else "merge",
        model_name=f"{task} specialist",
        library_name="transformers",
        pipeline_tag=tag,
        license=facts.get("license"),
        datasets=_hub_datasets([facts.get("unlabelled"), facts.get("evaluation")]),
        tags=["mdft", "model-merging", "label-free", "image-classification", "vision"],
        eval_results=results,
    )
    shown = ["base", "expert", "meta", "specialist"]
    if facts["gate"]["chosen"] != "specialist":
        shown.insert(3, "specialist_ungated")
    return _render(
        "specialist.md",
        data,
        facts,
        task=_plain(task),
        expert=_show(expert) if expert else None,
        class_names=[_plain(name) for name in facts["class_names"]],
        labels=_python(facts["class_names"][:20]),
        prompt=_python(facts.get("template")),
        pipeline_tag=tag,
        rows=[(NAMES[name], facts["accuracy"][name]) for name in shown if name in facts.get("accuracy", {})],
        evaluated_on=_describe_dataset(facts.get("evaluation")),
        overlap=_tell_overlap(facts.get("overlap")),
        learnt_from=_describe_dataset(facts.get("unlabelled")),
    )


def meta_card(facts: Mapping[str, Any]) -> ModelCard:
    """Card of a meta-model: the adapter, or the folded model.

    Args:
        facts: `pool` (reference), `adapter` (granularity and transform); and where they are known: `tasks`,
            `accuracy` by model and task, `images` and `overlap` by task, `datasets` and `evaluations` by task
            (arguments of `load_dataset`), `recipe`, `kept` (ratios by name), `license`, `license_problems`,
            `folded`, `pipeline_tag`, `figures` (by caption), `versions`.
    """
    pool, folded = facts["pool"], facts.get("folded", False)
    accuracy, evaluations = facts.get("accuracy", {}), facts.get("evaluations", {})
    results = [
        _result(task, {"accuracy": {"specialist": value}, "evaluation": evaluations.get(task)})
        for task, value in accuracy.get("meta", {}).items()
        if task != "average"
    ]
    data = _metadata(
        [pool["base"], *(source for source in pool["experts"].values() if source)],
        "merge" if folded else "adapter",
        model_name="meta-model" if results else None,
        library_name="transformers" if folded else "peft",
        pipeline_tag=facts.get("pipeline_tag") if folded else None,
        license=facts.get("license"),
        datasets=_hub_datasets([*facts.get("datasets", {}).values(), *evaluations.values()]),
        tags=["mdft", "merge", "model-merging", "label-free", "vision"],
        eval_results=results or None,
    )
    rows = [
        ({"meta": "**this model**", "specialist": "specialists made with it"}.get(name, NAMES[name]), row)
        for name, row in accuracy.items()
        if row and name in NAMES and name != "specialist_ungated"
    ]
    return _render(
        "meta.md",
        data,
        facts,
        folded=folded,
        loader="CLIPModel" if facts.get("pipeline_tag") == "zero-shot-image-classification" else "AutoModel",
        names=[_plain(task) for task in facts.get("tasks", [])],
        rows=rows,
        evaluated_on={
            _plain(task): {
                "on": _describe_dataset(spec) if isinstance(spec, Mapping) else None,
                "images": facts.get("images", {}).get(task),
                "overlap": _tell_overlap(facts.get("overlap", {}).get(task)),
            }
            for task, spec in evaluations.items()
        },
    )


def pool_card(
    pool: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]], license: tuple[str | None, list[str]]
) -> ModelCard:
    """Card of a published pool.

    Args:
        pool: Its reference.
        tasks: Options by task.
        license: The strictest, and problems.
    """
    data = ModelCardData(
        # No `base_model`: the Hub would list the pool, which has no weights, as a fine-tuned model of each.
        library_name="hf_mdft",
        license=license[0],
        datasets=_hub_datasets([options.get("unlabelled") for options in tasks.values()]) or None,
        tags=["mdft", "mdft-pool", "model-merging", "vision"],
    )
    described = {
        _plain(name): {
            "classes": [_plain(c) for c in options.get("class_names") or []],
            "templates": [_plain(t) for t in _as_list(options.get("templates"))],
            "unlabelled": _describe_dataset(options.get("unlabelled")),
        }
        for name, options in tasks.items()
    }
    return _render("pool.md", data, {"pool": pool, "license_problems": license[1]}, described=described)


def eval_results(task_values: Mapping[str, tuple[float, Any]], note: str) -> str | None:
    """Content of `.eval_results/mdft.yaml`, the Hub's newer form beside the card's `model-index`: results on datasets
    of the Hub; none where there are none.

    Args:
        task_values: Accuracy from 0 to 1 and arguments of `load_dataset`, by task.
        note: How they were measured.
    """
    entries = [
        EvalResultEntry(
            spec["path"], str(spec.get("name") or "default"), round(value, 4), spec.get("revision"), notes=note
        )
        for value, spec in task_values.values()
        if is_hub_dataset(spec)
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False) if entries else None


def put_repo_id(card: str, repo_id: str, revision: str | None = None) -> str:
    """The card with the repo's own id (and the branch it is on) where it was unknown."""
    if revision in (None, "main"):
        return card.replace(PLACEHOLDER, repo_id)
    card = card.replace(f'"{PLACEHOLDER}"', f'"{repo_id}", revision="{revision}"')
    return card.replace(PLACEHOLDER, f"{repo_id}@{revision}")


def _metadata(sources: list[Mapping[str, str]], relation: str, **fields: Any) -> ModelCardData:
    ids = _hub_ids(sources)
    known = {name: value for name, value in fields.items() if value}
    if "eval_results" in known:
        known["metrics"] = ["accuracy"]
    return ModelCardData(base_model=ids, base_model_relation=relation if ids else None, **known)


def _result(task: str, facts: Mapping[str, Any]) -> EvalResult:
    spec = facts.get("evaluation")
    on_hub = is_hub_dataset(spec)
    return EvalResult(
        task_type="image-classification",
        dataset_type=spec["path"] if on_hub else task,
        dataset_name=task,
        dataset_config=spec.get("name") if on_hub else None,
        dataset_split=spec.get("split") if on_hub else None,
        dataset_revision=spec.get("revision") if on_hub else None,
        metric_type="accuracy",
        metric_value=round(facts["accuracy"]["specialist"], 4),
    )


def _render(template: str, data: ModelCardData, facts: Mapping[str, Any], **words: Any) -> ModelCard:
    pool = facts["pool"]
    recipe = without_paths(facts.get("recipe"))
    text = yaml.dump(recipe, Dumper=_RecipeDumper, sort_keys=False, allow_unicode=True, width=float("inf"))
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATES / template),
        base=_show(pool["base"]),
        pool={_plain(name): _show(source) if source else "no expert" for name, source in pool["experts"].items()},
        facts=facts,
        placeholder=PLACEHOLDER,
        recipe=_fenced(text) if recipe else None,
        local=[_plain(name) for name, source in pool["experts"].items() if source and is_local(source)]
        + (["the base"] if is_local(pool["base"]) else []),
        problems=[_plain(problem) for problem in facts.get("license_problems", [])],
        figures={_plain(caption): path for caption, path in facts.get("figures", {}).items()},
        versions=facts.get("versions") or versions(),
        citation=_fenced((TEMPLATES / "citation.bib").read_text()),
        **words,
    )


def _hub_ids(sources: Iterable[Mapping[str, str]]) -> list[str] | None:
    """Ids that others can look up; a folder of this machine is none."""
    return list(dict.fromkeys(source["id"] for source in sources if not is_local(source))) or None


def is_local(source: Mapping[str, str]) -> bool:
    """Whether a reference names a folder of somebody's machine: those are pinned by content, not by a commit."""
    return source["revision"].startswith("sha256:")


DATASET_KEYS = ("path", "name", "split", "revision", "data_dir", "data_files")
"""Arguments of `load_dataset` that others are told: no token, no keys of a storage, no cache folder."""


def public_dataset(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `load_dataset` without secrets."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return re.sub(r"://[^/@]*@", "://", str(value))

    return {key: plain(spec[key]) for key in DATASET_KEYS if spec.get(key) is not None}


def is_hub_dataset(spec: Any) -> bool:
    """Whether arguments of `load_dataset` name a dataset that others can find."""
    return (
        isinstance(spec, Mapping)
        and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(spec.get("path"))) is not None
        and not spec.get("data_files")
    )


def _hub_datasets(specs: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(spec["path"] for spec in specs if is_hub_dataset(spec)))


def _describe_dataset(spec: Any) -> str | None:
    if not isinstance(spec, Mapping):
        return _plain(spec) if spec else None
    parts = [_plain(f"{key} {spec[key]}") for key in ("name", "split", "revision") if spec.get(key)]
    if is_hub_dataset(spec):
        name = f"[{_plain(spec['path'])}](https://huggingface.co/datasets/{spec['path']})"
    else:
        files = without_paths(spec.get("data_files") or spec.get("data_dir") or spec["path"])
        name = f"local files {_plain(files)}"
    return ", ".join([name, *parts])


def _show(source: Mapping[str, str]) -> str:
    if is_local(source):
        return f"`{Path(source['id']).name.replace('`', '')}` (a local folder, weights `{source['revision'][:19]}`)"
    return f"[{source['id']}](https://huggingface.co/{source['id']}/tree/{source['revision']})"


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _plain(text: Any) -> str:
    """User-supplied text without what Markdown or HTML would read as markup."""
    return "".join(f"\\{char}" if char in r"\`*_[]<>|#{}~" else char for char in " ".join(str(text).split()))


def _python(value: Any) -> str:
    """A literal for a code block, which nothing within can end."""
    return json.dumps(value, ensure_ascii=False).replace("`", "\\u0060")


def _fenced(text: str) -> str:
    """Text for a code block, which nothing within can end."""
    return text.replace("```", "'''").rstrip()


def _tell_overlap(share: float | None) -> str:
    """Whether the images of an evaluation were used without their labels, too."""
    if share is None:
        return "not compared with the unlabelled images"
    if share == 1:
        return "**transductive**, all of them are among the unlabelled images"
    if share > 0:
        return f"{100 * share:.1f} % of them are among the unlabelled images (**transductive**), the others are not"
    return "**held-out**, none of them is among the unlabelled images"


class _RecipeDumper(yaml.SafeDumper):
    """Lists on one line, everything else below each other."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.Node:
        return super().represent_sequence(tag, sequence, flow_style=True)


def without_paths(value: Any) -> Any:
    """Names of files and folders instead of where they lie: that is nobody's business."""
    if isinstance(value, Mapping):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value
