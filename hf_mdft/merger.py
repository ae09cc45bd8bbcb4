"""MetaMerger: the face of the package. Orchestration, no maths."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import set_seed
from transformers.trainer_utils import TrainOutput

from .adapter import MdftConfig, config_for
from .artifacts import MetaModelParts, Record, folded_tower, load_meta_model, push_meta_model
from .core.errors import InputError
from .core.lock import locked
from .core.timing import LATER_META, Timing
from .embedding.statistics import estimate_statistics
from .evaluation import Report, TransductiveMethod
from .heads import Head
from .meta import MdftTrainer, MdftTrainingArguments, resume_key
from .pool import ModelPool
from .reporting import compare, report_of
from .specialize import MetaTower, Specialist, SpecializeArguments, specialize_in_rounds
from .task_data import TaskData
from .tasks import Task
from .trainers import options_of, resumable


NO_META = "there is no meta-model yet: call fit() first"


class MetaMerger(TaskData):
    """A pool, its tasks, and what is made of them without labels.

    Args:
        pool: Base and experts.
        tasks: Tasks by the names of the pool's experts; a task without an expert is adapted to as well.
        config: Config of the adapter; its pool is filled in. The default takes TSV as Phi, which measured best.
        seed: Seed of every random choice.

    Raises:
        InputError: A task has no entry in the pool.

    Example:

        >>> merger = MetaMerger(pool, tasks={"mnist": Task(unlabelled=images)})
        >>> merger.fit()
        >>> specialists = merger.specialize()
        >>> print(merger.evaluate())
    """

    def __init__(
        self, pool: ModelPool, tasks: Mapping[str, Task], config: MdftConfig | None = None, seed: int = 0
    ) -> None:
        super().__init__(pool, tasks, seed)
        self.config = config_for(pool, config)
        self.model: PeftModel | None = None
        self.specialists: dict[str, Specialist] = {}
        self.rounds: list[dict[str, Specialist]] = []
        self.timing = Timing()
        self.record = Record()
        self._meta_heads: dict[str, Head] = {}
        self._fit_args: MdftTrainingArguments | None = None
        self._phases: dict[str, dict[str, Any]] = {}

    def __repr__(self) -> str:
        return f"MetaMerger({self.pool!r}, tasks={list(self.tasks)}, fitted={self.model is not None})"

    def variant(
        self,
        config: MdftConfig | None = None,
        pool: ModelPool | None = None,
        tasks: list[str] | None = None,
        *,
        fitted: bool = False,
    ) -> MetaMerger:
        """Another merger with the same images and heads: for another adapter, another pool, or some of the tasks.

        Args:
            config, pool, tasks: What differs.
            fitted: It has this one's meta-model too.
        """
        chosen = {name: self.tasks[name] for name in self.named(tasks)}
        other = MetaMerger(pool or self.pool, chosen, config or self.config, self.seed)
        other.take_from(self)
        if fitted:
            other.model, other._meta_heads, other._fit_args = self.model, self._meta_heads, self._fit_args
            other._phases, other.record = dict(self._phases), Record(self.record.meta)
        return other

    def meta_head(self, task: str) -> Head:
        """The head that the meta-model uses for a task: trained with it where `train_heads` was on."""
        own, trained = self.head(task), self._meta_heads.get(task)
        return trained.ordered(own.class_names, f"the meta-model's head of '{task}'") if trained else own

    def meta_tower(self) -> nn.Module:
        """The meta-model folded into a plain tower; the adapter stays as it is.

        Raises:
            InputError: There is no meta-model yet.
        """
        if self.model is None:
            raise InputError(NO_META)
        return folded_tower(self.model)

    def fit(self, args: MdftTrainingArguments | None = None) -> TrainOutput:
        """Phase 1: learn the coefficients (and heads) on the unlabelled images of all tasks; labels are never read.

        With `max_steps=0` the coefficients stay at their start: a static merge. An interrupted run goes on from its
        last checkpoint in `args.output_dir`. What an earlier call made is replaced when this one is done.

        Raises:
            InputError: As in `checked()`.
        """
        args = self.arguments(args, MdftTrainingArguments, "fit")
        with locked(Path(args.output_dir)):
            with self.timing.of("prepare"), args.main_process_first(desc="images and heads"):
                experts, images, heads = self.checked()
                key = resume_key(self.pool, self.config, heads, images, args, experts)
                checkpoint = resumable(Path(args.output_dir), key)
            with self.timing.of_work("meta", Path(args.output_dir)):
                set_seed(args.seed)
                model = get_peft_model(self.pool.tower(), copy.deepcopy(self.config))
                trained, history, output = {}, [], TrainOutput(0, 0.0, {})
                if args.max_steps == 0:
                    estimate_statistics(model, list(images.values()))
                else:
                    trainer = MdftTrainer(model, args, train_dataset=images, heads=heads, experts=experts)
                    output = trainer.train(resume_from_checkpoint=checkpoint, keyed=True)
                    model, history = trainer.finish(), trainer.state.log_history
                    trained = {t: h.cpu().requires_grad_(False) for t, h in trainer.trained_heads.items()}
        phases = {"meta": options_of(args)}
        self.record.set_meta(self, self.config, model, phases, list(trained), history)
        self.model, self._meta_heads, self._fit_args, self._phases = model, trained, args, phases
        self.timing.drop([LATER_META, *(f"specialist {task}" for task in self.specialists)])
        self.specialists, self.rounds = {}, []
        return output

    def specialize(
        self, args: SpecializeArguments | None = None, tasks: list[str] | None = None
    ) -> dict[str, Specialist]:
        """Phase 2: make a specialist of every task; labels are never read.

        In further rounds (`args.rounds`), specialists that the gate chose replace their experts in the pool, a new
        meta-model is built, and the loop goes on until the gate refuses all of them.

        Args:
            args: Arguments of phase 2.
            tasks: Names of the tasks; the default is all.

        Returns:
            Specialists by task; one holds the expert where no improvement was shown.
        """
        args, names = self.arguments(args, SpecializeArguments, "specialize"), self.named(tasks)
        meta = MetaTower(self.meta_tower(), self.meta_head)
        # Results of an earlier call must not stand in for a specialist that this one refuses.
        self.specialists, self.rounds = {t: s for t, s in self.specialists.items() if t not in names}, []
        self.timing.drop([*(f"specialist {task}" for task in names), *(() if self.specialists else [LATER_META])])
        found = specialize_in_rounds(self, meta, args, names, next_meta=self._next_meta, took=self.timing.add)
        self._taken |= {task: made.expert for task, made in (found[0] if found else {}).items()}
        self._phases["specialize"] = options_of(args)
        facts = self.record.continue_meta(self, self.config, self._phases)
        self.rounds = [
            self.specialists | {t: s.of_run(self.tasks[t], self.pool, facts, self.record) for t, s in held.items()}
            for held in found
        ]
        self.specialists = dict(self.rounds[-1]) if self.rounds else self.specialists
        return {task: self.specialists[task] for task in names if task in self.specialists}

    def _next_meta(self, pool: ModelPool, heads: Mapping[str, Head], folder: Path) -> MetaTower:
        """The next round's meta-model: the same training on a pool in which specialists replaced experts."""
        merger, args = self.variant(pool=pool), copy.copy(self._fit_args) or MdftTrainingArguments(seed=self.seed)
        merger._heads |= heads
        args.output_dir = str(folder)
        merger.fit(args)
        return MetaTower(merger.meta_tower(), merger.meta_head, merger.timing["meta"])

    def evaluate(
        self, baselines: Mapping[str, MetaMerger | TransductiveMethod] | None = None, *, share: bool = False
    ) -> Report:
        """Accuracy of base, experts, baselines, meta-model and specialists, for tasks with evaluation images.

        The only method that reads labels.

        Args:
            baselines: Further mergers of the same tasks, by the name that they have in the report: their specialists
                are measured where they have any, else their meta-models. Or training-free methods, on the experts.
            share: Whether all processes (`accelerate launch`) call this, and share the tasks out among them.
        """
        self.timing.pop("evaluate", None)
        with self.timing.of("evaluate"):
            found = compare(self, baselines or {}, share)
        return report_of(self, found)

    def _parts(self) -> MetaModelParts:
        if self.model is None or self.record.meta is None:
            raise InputError(NO_META)
        if "meta" not in self._phases:  # loaded: the tasks may be others than those that it was saved with
            self.record.continue_meta(self, self.config, self._phases)
        facts, measured, average = self.record.meta, self.record.measured, self.record.average
        return MetaModelParts(
            self.pool, self.model, self.tasks, self.heads(), self._meta_heads, self.seed, facts, measured, average
        )

    def save_pretrained(self, folder: str | Path, *, folded: bool = False) -> None:
        """Write the meta-model: the adapter (kilobytes), what its tasks are, and a model card.

        Args:
            folder: Folder to write to; made if need be.
            folded: Write a plain model with the coefficients folded in, and heads, instead of the adapter.

        Raises:
            InputError: There is no meta-model yet.
        """
        (self._parts().write_folded if folded else self._parts().write)(Path(folder))

    def push_to_hub(self, repo_id: str, *, folded: bool = False, **kwargs: Any) -> CommitInfo:
        """Push the meta-model in one commit; `folded` as in `save_pretrained`, `kwargs` as in `push_folder`."""
        return push_meta_model(self._parts(), repo_id, folded, **kwargs)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        tasks: Mapping[str, Task] | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> MetaMerger:
        """A meta-model from a folder or the Hub, with its pool at the pinned revisions.

        Args:
            source: What `save_pretrained` or `push_to_hub` has written.
            tasks: Tasks with images, to evaluate or to specialise (`fit` starts afresh); the default has class names
                and templates only.
            revision, token: As in transformers.

        Raises:
            InputError: It is no meta-model, or an expert is gone or changed.
        """
        found = load_meta_model(source, revision, token)
        pool = ModelPool.from_reference(found.pool_reference, token=token)
        merger = cls(pool, found.tasks if tasks is None else tasks, found.config(), found.seed)
        merger.model, merger._meta_heads = found.load_model(pool), found.heads(merger.tasks)
        merger.record = Record(found.facts, found.measured, found.average)
        return merger
