"""What the gate keeps where there is nothing to learn. Reads labels, to measure and to draw sets by class."""

from __future__ import annotations

import copy
import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import set_seed

from ...core.errors import InputError, known
from ...core.hashing import fingerprint
from ...core.tables import markdown_table
from ...evaluation import accuracy, predict
from ...experts import TaskExperts
from ...heads import Head
from ...merger import MetaMerger
from ...recipes.schema import Recipe
from ...specialize import SpecializeArguments, specialize_task
from ...specialize.gate import LIMITS, RULE, Familiarity, familiarity, information_by_others
from ...specialize.given import as_asked, models_of
from ...specialize.teacher import observe_sources
from ...tasks import Images
from ..outcome import inputs_key, measured_tasks, needs_specialists, remembered
from .sets import ANOTHER, HOSTILE, RANDOM, SHUFFLED, Hostile, Request


KEY_VERSION = "hostile 7"

ALLOWED = 0.01
"""Accuracy that a kept specialist may lose."""


@dataclass(frozen=True)
class HostileRow:
    """One attempt.

    Args:
        kind: Name of the set in `HOSTILE`.
        task: Name of the task.
        seed: Seed of set and training.
        images: Number of images.
        expert: Accuracy of the expert on the task's evaluation images, 0 to 1.
        ungated: That of the specialist before the gate; the expert's where the gate let none be trained.
        kept: That of what the gate kept.
        chosen: What it chose.
        reason: Why, in words.
        different: Number of clearly different images.
        coverage: Effective number of classes, in shares of what even draws would have; see `Familiarity`.
        evenness: The same of the predicted classes.
        better: Mutual information of the predictions of the other task's expert that knows the images best, over that
            of the task's own; 0 where none knows more in nats.
    """

    kind: str
    task: str
    seed: int
    images: int
    expert: float
    ungated: float
    kept: float
    chosen: str
    reason: str
    different: int
    coverage: float
    evenness: float
    better: float

    @property
    def gain(self) -> float:
        """Accuracy of what was kept minus the expert's."""
        return self.kept - self.expert


def hostile_study(
    recipe: Recipe,
    output_dir: Path,
    progress: Callable[[str], None],
    *,
    kinds: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    max_steps: int | None = 100,
) -> list[HostileRow]:
    """Make specialists from hostile sets, and measure what the gate kept against the expert.

    Args:
        recipe: Recipe with evaluation images.
        output_dir: Folder of work in progress; a study that was cut off goes on there.
        progress: Called with one line for every attempt.
        kinds: Names of `HOSTILE`; the default is all.
        tasks: Names of the tasks; the default is every one with evaluation images and an expert.
        seeds: Seeds of sets and training.
        max_steps: Most steps of each phase; `None` is what the recipe says.

    Raises:
        InputError: A name is unknown, or there is nothing to measure.
    """
    needs_specialists(recipe)
    chosen = [known(kind, HOSTILE, "kind") for kind in kinds or HOSTILE]
    merger = recipe.merger()
    measured = [task for task in measured_tasks(merger, str(recipe.path)) if merger.pool.experts_of(task)]
    names = [known(task, measured, "task") for task in tasks or measured]
    if len(merger.tasks) == 1:
        if ANOTHER in (kinds or ()):
            raise InputError(
                f"{recipe.path}: one task alone, so there are no images of another; leave out '{ANOTHER}'"
            )
        chosen = [kind for kind in chosen if kind != ANOTHER]
    run = _Run(merger, recipe, output_dir, max_steps)
    found = []
    for task in names:
        for seed in seeds:
            for kind in chosen:
                row = run.row(kind, task, seed)
                found.append(row)
                progress(
                    f"{task}, {kind}, seed {seed}: expert {100 * row.expert:.1f}, specialist "
                    f"{100 * (row.ungated - row.expert):+.1f}, kept {100 * row.gain:+.1f}; {row.reason}"
                )
    return found


class _Run:
    def __init__(self, merger: MetaMerger, recipe: Recipe, output_dir: Path, max_steps: int | None) -> None:
        self.merger, self.recipe, self.output_dir, self.max_steps = merger, recipe, output_dir, max_steps

    @functools.cached_property
    def meta(self) -> nn.Module:
        """Tower of the meta-model, which is trained on the tasks' own images when it is first needed."""
        args = self.recipe.meta_arguments(self.output_dir)
        args.max_steps = self._steps(args.max_steps)
        self.merger.fit(args)
        return self.merger.meta_tower()

    @functools.cached_property
    def meta_key(self) -> str:
        return fingerprint(self.meta.state_dict())

    def _steps(self, steps: int) -> int:
        return steps if self.max_steps is None or 0 <= steps <= self.max_steps else self.max_steps

    def row(self, kind: str, task: str, seed: int) -> HostileRow:
        setting, folder = HOSTILE[kind], self.output_dir / task / f"{kind}-{seed}"
        key = [KEY_VERSION, kind, task, seed, self.max_steps, self.merger.pool.reference()]
        key += [repr(RULE), *LIMITS, inputs_key(self.merger, [task])]
        key += [self.recipe.adapter, self.recipe.meta, self.recipe.specialize, self.recipe.seed]
        make = functools.partial(self._make, setting, task, seed, folder)
        return HostileRow(kind, task, seed, **remembered(folder / "outcome.json", key, make))

    def _make(self, setting: Hostile, task: str, seed: int, folder: Path) -> dict[str, Any]:
        merger = self.merger
        images = setting.images(Request(merger, task, seed))
        pool, head = merger.pool, merger.expert_head(task)
        if setting.expert == RANDOM:
            torch.manual_seed(seed)
            state = pool.architecture.new_tower(pool.config).state_dict()
            pool.save_complete({name: tensor.float() for name, tensor in state.items()}, head, folder / "expert")
            pool = pool.with_experts({task: folder / "expert"})
        elif setting.expert == SHUFFLED:
            head = shuffled(head, seed)
        own = setting.expert == "own"
        experts = merger.experts(task) if own else TaskExperts(task, pool, dict.fromkeys(pool.experts_of(task), head))
        args = self.recipe.specialize_arguments(folder / "work", seed=seed, images=None, rounds=1, gate=True)
        args.max_steps = self._steps(args.max_steps)
        meta, meta_head, data = copy.deepcopy(self.meta), merger.meta_head(task), merger.labelled(task)
        set_seed(seed)
        made = specialize_task(task, pool, meta, head, images, args, self.meta_key, experts, meta_head=meta_head)

        def measured(tower: nn.Module, head: Head) -> float:
            return accuracy(predict(tower, pool.architecture, head, data.images), data.labels)

        known = self._known(experts, head, images, args)
        found = {
            "images": len(images),
            "different": known.different,
            "coverage": known.coverage,
            "evenness": known.evenness,
            "better": known.other_information / max(known.information, 1e-8),
            "expert": measured(pool.tower(made.expert), made.expert_head),
            "ungated": measured(made.tower(gated=False), made.candidate_head),
            "kept": measured(made.tower(), made.head),
            "chosen": made.decision.chosen,
            "reason": made.decision.reason,
        }
        for part in ("work", "expert"):  # weights and checkpoints: everything that is asked of them is known
            shutil.rmtree(folder / part, ignore_errors=True)
        return found

    def _known(self, experts: TaskExperts, head: Head, images: Images, args: SpecializeArguments) -> Familiarity:
        """What the gate was told of the images; the experts' outputs are still in the cache."""
        images, task = images.distinct(), experts.task
        models = models_of(as_asked(experts, args, images), self.meta, head, images, args)
        (reference, *_) = observe_sources(models, args.teacher_views, others=False).values()
        return familiarity(
            models, reference, information_by_others({task: experts}, {task: images}, args.device)[task]
        )


def shuffled(head: Head, seed: int) -> Head:
    """The same head with its classes mixed up."""
    order = torch.randperm(head.num_classes, generator=torch.Generator().manual_seed(seed))
    return head.with_classes(order.tolist(), head.class_names)


EVIDENCE = {
    "different": "clearly different",
    "coverage": "coverage of classes",
    "evenness": "evenness of predicted classes",
    "better": "another task's expert over own",
}
"""Heading of each field of a row that the gate is given."""

HEADER = ("kind", "attempts", "kept", "expert", "specialist, no gate", "kept against expert", "worst", "below 1 point")


def as_markdown(rows: Sequence[HostileRow]) -> dict[str, str]:
    """Tables by name: one line for every kind, then the attempts that lost more than a point."""
    lines = []
    for kind in dict.fromkeys(row.kind for row in rows):
        mine = [row for row in rows if row.kind == kind]
        count = len(mine)
        lines.append(
            [
                f"{kind}: {HOSTILE[kind].about}",
                str(count),
                str(sum(row.chosen == "specialist" for row in mine)),
                f"{100 * sum(row.expert for row in mine) / count:.1f}",
                f"{100 * sum(row.ungated - row.expert for row in mine) / count:+.2f}",
                f"{100 * sum(row.gain for row in mine) / count:+.2f}",
                f"{100 * min(row.gain for row in mine):+.1f}",
                str(sum(row.gain < -ALLOWED for row in mine)),
            ]
        )
    bad = [
        [row.kind, row.task, str(row.seed), f"{100 * row.expert:.1f}", f"{100 * row.gain:+.1f}", row.reason]
        for row in rows
        if row.gain < -ALLOWED
    ]
    tables = {"hostile": markdown_table(HEADER, lines), "evidence": _evidence(rows)}
    if bad:
        tables["below"] = markdown_table(("kind", "task", "seed", "expert", "kept against expert", "reason"), bad)
    return tables


def _evidence(rows: Sequence[HostileRow]) -> str:
    """What tells each kind from the tasks' own images: smallest and largest values over all attempts."""
    lines = []
    for kind in dict.fromkeys(row.kind for row in rows):
        mine = [row for row in rows if row.kind == kind]
        values = [[getattr(row, name) for row in mine] for name in EVIDENCE]
        first, *others = [(min(found), max(found)) for found in values]
        lines.append([kind, "{} to {}".format(*first), *("{:.2f} to {:.2f}".format(*ends) for ends in others)])
    return markdown_table(("kind", *EVIDENCE.values()), lines)


def as_dicts(rows: Sequence[HostileRow]) -> list[dict[str, Any]]:
    """Rows as JSON holds them."""
    return [asdict(row) for row in rows]
