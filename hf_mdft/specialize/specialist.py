"""The result for one task."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..heads import Head
from ..hub import push_folder
from ..hub.cards import shared_licence, specialist_card
from ..pool import ModelPool, ModelSource
from .gate import Decision


@dataclass
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

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the complete model: weights in safetensors, config, the base's processor and tokenizer, model card.

        It loads with plain transformers, without this package.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.pool.save_complete(self.tower().state_dict(), self.head, folder)
        self.head.save(folder / "head.safetensors")
        (folder / "mdft.json").write_text(json.dumps({"task": self.task, "gate": self.decision.to_dict()}, indent=2))
        facts = {**self.facts, "pipeline_tag": self.pool.architecture.pipeline_tag(self.pool.config)}
        pool = self.origin or self.pool
        sources = [pool.base, *(source for task, source in pool.experts.items() if task == self.task)]
        card = specialist_card(
            self.task,
            pool.reference(),
            self.head.class_names,
            self.decision.to_dict(),
            facts,
            shared_licence(sources),
        )
        card.save(folder / "README.md")

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Push the complete model in one commit; see `hf_mdft.hub.push_folder` for the arguments.

        Returns:
            The commit's address.
        """
        return push_folder(self.save_pretrained, repo_id, **kwargs)
