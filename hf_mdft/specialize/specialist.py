"""The result for one task."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from torch import nn

from ..artifacts import Record, SpecialistParts
from ..artifacts.record import pool_facts, specialist_facts
from ..artifacts.result import push_result
from ..cards import Decision, MetaFacts, SpecialistFacts, Trust
from ..core.errors import InputError
from ..core.sealed import seal_of
from ..core.versions import versions
from ..heads import Head
from ..pool import ModelPool, ModelSource
from ..tasks import Task


LATER_START = "specialist of the round before"
"""Where students of later rounds start, in words."""


@dataclass(frozen=True, repr=False)
class Specialist:
    """What phase 2 gives for one task: the student where the gate chose it, else the expert (or the meta-model, for a
    task without one).

    Args:
        task: Name of the task.
        pool: The pool that it came from.
        candidate_head: Head of the student.
        decision: The gate's decision.
        candidate: Folder of the student as a complete model, whatever the gate chose.
        fallback: Folder of the meta-model for a task without an expert.
        history: Log lines of the student's training.
        origin: The pool that the user gave, where `pool` is that of a later round.
        facts: How it was made, for its card.
        restorations: What was done to the images that its expert taught from, by name, in order.
        record: Record of the run that it belongs to: what was measured of it.
        interpolated: Folder of the weights between start and student that the gate chose, where it chose such.
        trust: What was found without labels of the task's experts.
        expert_head: Head of what is kept in the student's place: that expert, or the meta-model; the default is the
            student's.
        made: Hashes of the folder's files when it was read, by which it is known whether it is still the same.
    """

    task: str
    pool: ModelPool
    candidate_head: Head
    decision: Decision
    candidate: Path
    fallback: Path | None
    history: list[dict[str, Any]]
    origin: ModelPool | None = None
    facts: SpecialistFacts | None = None
    restorations: tuple[str, ...] = ()
    record: Record = field(default_factory=Record, compare=False)
    interpolated: Path | None = None
    trust: Trust = Trust()
    expert_head: Head | None = None
    made: str | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"Specialist({self.task!r}, kept={self.kept!r}, {self.decision.reason!r})"

    @property
    def expert(self) -> str | None:
        """Name of the expert that it was compared with; `None` for a task without one."""
        return self.trust.expert

    @property
    def improved(self) -> bool:
        """Whether the gate chose the student."""
        return self.decision.improved

    @property
    def kept(self) -> str:
        """What `tower()` gives, in words."""
        fallback = "meta-model" if self.fallback else "expert" if self.expert in (None, self.task) else self.expert
        if self.interpolated:
            several = self.trust.start not in ("expert", "meta-model", f"expert {self.expert}", LATER_START)
            origin = self.trust.start if several else fallback
            return f"weights {self.decision.share:.0%} of the way from {origin} to specialist"
        return "specialist" if self.improved else fallback

    @property
    def chosen(self) -> Path:
        """Folder of what the gate chose where it is not the expert: the student, or weights between the two."""
        return self.interpolated or self.candidate

    def of_run(self, task: Task, pool: ModelPool, meta: MetaFacts, record: Record) -> Specialist:
        """The same as part of a run.

        Args:
            task: Its task.
            pool: The pool that the user gave.
            meta: How the run's meta-model was made.
            record: Record of the run.
        """
        facts = specialist_facts(self, task, pool, meta)
        return replace(self, origin=pool, facts=facts, record=record)

    @property
    def head(self) -> Head:
        """Head of what is kept."""
        return self.candidate_head if self.improved or self.expert_head is None else self.expert_head

    def tower(self, gated: bool = True) -> nn.Module:
        """The tower in evaluation mode; `gated=False` gives the student even where the gate kept the expert."""
        folder = self.chosen if gated else self.candidate
        if gated and not self.improved:
            if self.fallback is None:
                return self.pool.tower(self.expert or self.task)
            folder = self.fallback
        if self.made is not None and self.made != seal_of(folder.parent):
            raise InputError(
                f"{folder.parent}: no longer what this specialist of '{self.task}' was made as: something else was "
                "written there, or it was removed; give each run an output_dir of its own"
            )
        return self.pool.load_tower(ModelSource.resolve(folder))

    def parts(self) -> SpecialistParts:
        """What is written of it: the tower that was kept, head, facts and figures of the run."""
        pool, facts = self.origin or self.pool, self.facts
        if facts is None:  # made by itself, without a run around it
            meta = MetaFacts(
                pool_facts(pool), "", {}, pool.architecture.pipeline_tag(pool.config), versions=versions()
            )
            facts = specialist_facts(self, Task(None), pool, meta)
        return SpecialistParts(pool, self.tower().state_dict(), self.head, facts, self.record.measured_of(self))

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
        parts = self.parts()
        return push_result(parts.write_vision_only if vision_only else parts.write, repo_id, **kwargs)
