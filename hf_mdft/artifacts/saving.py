"""A meta-model as a folder: adapter, what its tasks are, figures, card."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import TrainingArguments

from ..cards.cards import EVAL_RESULTS, eval_results, is_local, meta_card, without_paths
from ..core.errors import InputError
from ..core.versions import versions
from ..heads import Head
from ..pool import ModelPool
from ..trainers.resume import IRRELEVANT
from .figures import card_figures


RESULT_FILE = "mdft.json"
HEAD_FOLDERS = ("heads", "own_heads")
"""Folders: heads that the meta-model uses; a task's own head, where another was trained and no pool can build it."""
TRAINED_HEAD = "trained_head"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


RELEVANT = (
    "num_train_epochs", "gradient_accumulation_steps", "optim", "optim_args", "adam_beta1", "adam_beta2",
    "weight_decay", "max_grad_norm", "warmup_steps", "lr_scheduler_kwargs", "bf16", "fp16", "data_seed",
    "neftune_noise_alpha", "label_smoothing_factor",
)  # fmt: skip
"""Options of every `Trainer` that its result depends on."""


def options_of(args: TrainingArguments) -> dict[str, Any]:
    """What a recipe needs to give the same result: this package's own options, and what differs from defaults."""
    values = args.to_dict()
    left_out = {*IRRELEVANT, "remove_unused_columns"}
    if "images_per_task" in values:
        left_out.add("per_device_train_batch_size")  # follows from it
    own = [name for name in type(args).__annotations__ if name not in left_out]
    defaults = {field.name: field.default for field in dataclasses.fields(args)}
    changed = [name for name in RELEVANT if name in values and name not in own and values[name] != defaults[name]]
    return {name: values[name] for name in [*own, *changed]}


def coefficient_table(model: PeftModel, pool: ModelPool) -> dict[str, dict[str, float]]:
    """Coefficients in use, by tensor and expert."""
    experts = list(pool.experts)
    rows = model.base_model.coefficients(model.active_adapter)
    return {name: dict(zip(experts, row.tolist(), strict=True)) for name, row in rows.items()}


def kept_ratios(history: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Shares of images that counted, by task and term, in the last log line."""
    lines = [line for line in history if "loss" in line]
    found: dict[str, dict[str, float]] = {}
    for key, value in (lines[-1] if lines else {}).items():
        if key.startswith("kept_") and "/" in key:
            term, _, task = key.removeprefix("kept_").partition("/")
            found.setdefault(task, {})[term] = value
    return found


def meta_facts(
    model: PeftModel, pool: ModelPool, history: list[dict[str, Any]], recipe: dict[str, Any] | None
) -> dict[str, Any]:
    """What a card tells of a meta-model, as far as training knows it."""
    config = model.peft_config[model.active_adapter]
    license, problems = pool.license()
    return {
        "pool": pool.reference(),
        "adapter": {"granularity": config.granularity, "transform": config.transform},
        "license": license,
        "license_problems": problems,
        "pipeline_tag": pool.architecture.pipeline_tag(pool.config),
        "coefficients": coefficient_table(model, pool),
        "history": {"meta": history},
        "kept": kept_ratios(history),
        "recipe": recipe,
        "versions": versions(),
    }


def save_meta(
    folder: Path,
    model: PeftModel,
    pool: ModelPool,
    heads: Mapping[str, Head],
    tasks: dict[str, Any],
    seed: int,
    facts: dict[str, Any],
    trained: Mapping[str, Head],
    folded: torch.nn.Module | None = None,
) -> None:
    """Write a meta-model's folder.

    Args:
        folder: Made if need be.
        model: With the adapter.
        pool: It is made of.
        heads: The tasks' own heads, by task.
        tasks: Options by task. A head among them, rather than the name of one that the pool can build, is written too;
            beside a folded model all are.
        seed: Of the run.
        facts: For the card.
        trained: Heads that were trained with the coefficients, by task; always written.
        folded: The tower with the coefficients folded in, to be written instead of the adapter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if folded is None:
        model.save_pretrained(folder, save_embedding_layers=False)
    else:
        pool.save_complete(folded.state_dict(), None, folder)
    for task, head in heads.items():
        options, name = dict(tasks[task]), f"{task}.safetensors"
        if task in trained:
            options[TRAINED_HEAD] = _save_head(trained[task], folder, HEAD_FOLDERS[0], name)
        if folded is not None and task not in trained:
            options["head"] = _save_head(head, folder, HEAD_FOLDERS[0], name)
        elif isinstance(options.get("head"), Head):
            options["head"] = _save_head(head, folder, HEAD_FOLDERS[task in trained], name)
        tasks = {**tasks, task: options}
    facts = without_paths({**facts, "folded": folded is not None, "trained_heads": sorted(trained)})
    if folded is not None and pool.architecture.own_heads:
        facts["pipeline_tag"] = "image-feature-extraction"  # one tower, many classifiers
    (folder / RESULT_FILE).write_text(
        json.dumps({"tasks": tasks, "seed": seed, "facts": facts}, indent=2, default=str)
    )
    meta_card({**facts, "figures": card_figures(facts, folder)}).save(folder / "README.md")
    measured = facts.get("accuracy", {}).get("meta", {})
    values = {task: (measured[task], facts["evaluations"].get(task)) for task in measured if task != "average"}
    write_eval_results(folder, values)


def _save_head(head: Head, folder: Path, where: str, name: str) -> str:
    (folder / where).mkdir(exist_ok=True)
    head.save(folder / where / name)
    return f"{where}/{name}"


def refuse_local(reference: Mapping[str, Any]) -> None:
    """Raises:
    InputError: An adapter's pool holds folders of this machine: others could not load it, and would read their paths.
    """
    sources = {"base": reference["base"], **reference["experts"]}
    local = [name for name, source in sources.items() if source and is_local(source)]
    if local:
        raise InputError(
            f"this adapter refers to folders of this machine ({', '.join(local)}), so others could not load it: push "
            "those models and build the pool from their repos, or push the meta-model folded"
        )


def read_adapter(folder: Path, where: str) -> dict[str, Any]:
    """The config of a saved adapter, whose files are there and whole.

    Raises:
        InputError: They are not, or it is another kind of adapter.
    """
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            raise InputError(f"{where}: no {name}; give a meta-model that MetaMerger has written")
    try:
        config = json.loads((folder / ADAPTER_FILES[0]).read_text())
        with safe_open(folder / ADAPTER_FILES[1], framework="pt"):
            pass
        if config["peft_type"] != "MDFT":
            raise InputError(f"{where}: an adapter of type {config['peft_type']}, not of hf_mdft")
        refs = [config["pool"]["base"], *(ref for ref in config["pool"]["experts"].values() if ref)]
        if not all(isinstance(ref["id"], str) and isinstance(ref["revision"], str) for ref in refs):
            raise TypeError("its pool is no reference")
    except InputError:
        raise
    except Exception as error:  # a stranger's file: the parser raises whatever it stumbles over
        raise InputError(
            f"{where}: the adapter is damaged ({type(error).__name__}: {error}); make it again"
        ) from error
    return config


def write_eval_results(folder: Path, values: Mapping[str, tuple[float, Any]]) -> None:
    """Write results on datasets of the Hub in the Hub's own format, where there are any."""
    text = eval_results(values, "hf_mdft: no labels were used but for this evaluation")
    if text:
        (folder / EVAL_RESULTS).parent.mkdir(exist_ok=True)
        (folder / EVAL_RESULTS).write_text(text)
