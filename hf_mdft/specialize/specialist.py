"""The result for one task."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitInfo
from torch import nn
from transformers import AutoImageProcessor

from ..architectures import Architecture, architecture_of
from ..architectures.base import read_config
from ..artifacts.figures import card_figures
from ..artifacts.saving import RESULT_FILE, write_eval_results
from ..cards.cards import specialist_card, without_paths
from ..core.errors import InputError
from ..heads import Head, load_head
from ..hub import push_folder
from ..pool import ModelPool, ModelSource
from ..pool.headers import read_header
from ..pool.weights import TowerWeights
from .gate import Decision


HEAD_FILE = "head.safetensors"


@dataclass(repr=False)
class Specialist:
    """What phase 2 gives for one task: the student where the gate chose it, else the expert (or the meta-model, for a
    task without one).

    Args:
        task: Its name.
        pool: That it came from.
        head: Of the task.
        decision: Of the gate.
        candidate: Folder of the student as a complete model, whatever the gate said.
        fallback: Folder of the meta-model for a task without an expert.
        history: Log lines of the student's training.
        facts: What the model card tells of the run; filled by evaluation.
        origin: The pool that the user gave, where `pool` is that of a later round.
    """

    task: str
    pool: ModelPool
    head: Head
    decision: Decision
    candidate: Path
    fallback: Path | None
    history: list[dict[str, Any]]
    facts: dict[str, Any]
    origin: ModelPool | None = None

    def __repr__(self) -> str:
        return f"Specialist({self.task!r}, kept={self.kept!r}, {self.decision.reason!r})"

    @property
    def improved(self) -> bool:
        """Whether the gate chose the student."""
        return self.decision.chosen == "specialist"

    @property
    def kept(self) -> str:
        """What `tower()` gives, in words."""
        return "specialist" if self.improved else "meta-model" if self.fallback else "expert"

    def tower(self, gated: bool = True) -> nn.Module:
        """The tower in evaluation mode; `gated=False` gives the student even where the gate kept the expert."""
        if gated and not self.improved:
            if self.fallback is None:
                return self.pool.tower(self.task)
            return self.pool.load_tower(ModelSource.resolve(self.fallback))
        return self.pool.load_tower(ModelSource.resolve(self.candidate))

    def save_pretrained(self, folder: str | Path, *, vision_only: bool = False) -> None:
        """Write the complete model: weights in safetensors, config, the base's processor and tokenizer, model card.

        It loads with plain transformers, without this package.

        Args:
            folder: Made if need be.
            vision_only: Write the vision tower and the image processor alone.
        """
        pool = self.origin or self.pool
        facts = {
            **self.facts,
            "pool": pool.reference(),
            "class_names": self.head.class_names,
            "gate": self.decision.to_dict(),
            "features": pool.architecture.feature_expression,
            "vision_only": vision_only,
        }
        state = self.tower().state_dict()

        def write_model(target: Path) -> None:
            if vision_only:
                write_tower(pool.architecture, pool.base.folder, state, target)
            else:
                self.pool.save_complete(state, self.head, target)

        _write(self.task, Path(folder), write_model, self.head, facts)

    def push_to_hub(self, repo_id: str, *, vision_only: bool = False, **kwargs: Any) -> CommitInfo:
        """Push the complete model in one commit.

        Args:
            repo_id: `"owner/name"`.
            vision_only: As in `save_pretrained`.
            kwargs: See `hf_mdft.hub.push_folder`.
        """
        return push_folder(lambda folder: self.save_pretrained(folder, vision_only=vision_only), repo_id, **kwargs)


def check_result(folder: Path) -> bool:
    """Whether a folder is a meta-model; else it is a specialist, and whole.

    Raises:
        InputError: It is neither, or its weights are missing or damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a run's 'meta' or 'specialists/TASK' folder")
    if not (folder / RESULT_FILE).is_file():
        raise InputError(
            f"{folder}: no result of a run (no {RESULT_FILE}); give its 'meta' or 'specialists/TASK' folder"
        )
    try:
        saved = json.loads((folder / RESULT_FILE).read_text())
        is_meta, folded = "tasks" in saved, saved["facts"].get("folded", False)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder}: {RESULT_FILE} is damaged ({error}); make the result again") from error
    if not is_meta or folded:
        read_config(folder, str(folder))
        read_header(ModelSource.resolve(folder))
    return is_meta and not folded


def vision_only_copy(source: Path, target: Path) -> None:
    """Write the vision tower of a saved specialist alone, with a card that says so.

    Raises:
        InputError: `source` is no saved specialist.
    """
    try:
        saved = json.loads((source / RESULT_FILE).read_text())
        task, facts = saved["task"], {**saved["facts"], "vision_only": True}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{source}: no saved specialist (no readable {RESULT_FILE}); give 'specialists/TASK'"
        ) from error
    found = ModelSource.resolve(source)
    config = read_config(source, str(source))
    architecture = architecture_of(config, str(source))
    weights = TowerWeights(found, architecture, architecture.new_tower(config))
    head = load_head(source / HEAD_FILE)
    _write(task, target, lambda folder: write_tower(architecture, source, dict(weights.items()), folder), head, facts)


def write_tower(architecture: Architecture, base: Path, state: dict[str, torch.Tensor], folder: Path) -> None:
    """Write a tower and the image processor of the model at `base`."""
    architecture.save_tower(read_config(base, str(base)), state, folder)
    AutoImageProcessor.from_pretrained(base, trust_remote_code=False).save_pretrained(folder)


def _write(task: str, folder: Path, write_model: Callable[[Path], None], head: Head, facts: dict[str, Any]) -> None:
    """Write the model, and all that a specialist's folder holds beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = without_paths(facts)
    write_model(folder)
    head.save(folder / HEAD_FILE)
    (folder / RESULT_FILE).write_text(json.dumps({"task": task, "facts": facts}, indent=2, default=str))
    specialist_card(task, {**facts, "figures": card_figures(facts, folder)}).save(folder / "README.md")
    measured = facts.get("accuracy", {}).get("specialist")
    write_eval_results(folder, {} if measured is None else {task: (measured, facts.get("evaluation"))})
