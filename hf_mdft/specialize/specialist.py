"""The result for one task."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from torch import nn

from ..artifacts import Record, SpecialistParts
from ..artifacts.layout import REPLACED
from ..artifacts.record import pool_facts, specialist_facts
from ..cards import Decision, MetaFacts
from ..heads import Head
from ..hub import push_folder
from ..pool import ModelPool, ModelSource
from ..tasks import Task


@dataclass(frozen=True, repr=False)
class Specialist:
    """What phase 2 gives for one task: the student where the gate chose it, else the expert (or the meta-model, for a
    task without one).

    Args:
        task: Name of the task.
        pool: The pool that it came from.
        head: Head of the task.
        decision: The gate's decision.
        candidate: Folder of the student as a complete model, whatever the gate chose.
        fallback: Folder of the meta-model for a task without an expert.
        history: Log lines of the student's training.
        origin: The pool that the user gave, where `pool` is that of a later round.
        record: Facts of the run that it belongs to, for its card.
    """

    task: str
    pool: ModelPool
    head: Head
    decision: Decision
    candidate: Path
    fallback: Path | None
    history: list[dict[str, Any]]
    origin: ModelPool | None = None
    record: Record = field(default_factory=Record, compare=False)

    def __repr__(self) -> str:
        return f"Specialist({self.task!r}, kept={self.kept!r}, {self.decision.reason!r})"

    @property
    def improved(self) -> bool:
        """Whether the gate chose the student."""
        return self.decision.improved

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

    def parts(self) -> SpecialistParts:
        """What is written of it: the tower that was kept, head, facts and figures of the run."""
        pool, facts = self.origin or self.pool, self.record.specialists.get(self.task)
        if facts is None:  # made by itself, without a run around it
            features = pool.architecture.feature_expression
            meta = MetaFacts(pool_facts(pool), "", {}, pool.architecture.pipeline_tag(pool.config))
            facts = specialist_facts(self.task, Task(None), meta, self.head, self.decision, self.history, features)
        return SpecialistParts(pool, self.tower().state_dict(), self.head, facts, self.record.measured.get(self.task))

    def save_pretrained(self, folder: str | Path, *, vision_only: bool = False) -> None:
        """Write the complete model: weights in safetensors, config, the base's processor and tokenizer, model card.

        It loads with plain transformers, without this package.

        Args:
            folder: Folder to write to; made if need be.
            vision_only: Write the vision tower and the image processor alone.
        """
        parts = self.parts()
        (parts.write_vision_only if vision_only else parts.write)(Path(folder))

    def push_to_hub(self, repo_id: str, *, vision_only: bool = False, **kwargs: Any) -> CommitInfo:
        """Push the complete model in one commit.

        Args:
            repo_id: `"owner/name"`.
            vision_only: As in `save_pretrained`.
            kwargs: See `hf_mdft.hub.push_folder`.
        """
        return push_folder(
            lambda folder: self.save_pretrained(folder, vision_only=vision_only),
            repo_id,
            replaces=REPLACED,
            **kwargs,
        )
