"""What each part adds: the recipe with one part at a time taken out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..adapter import MdftConfig
from ..core.cache import key_of
from ..core.errors import InputError
from ..core.tables import markdown_table
from ..evaluation import average_p_value, paired_interval
from ..merger import MetaMerger
from ..recipes.options import check_epochs
from ..recipes.schema import Recipe
from .changes import Change, left
from .outcome import (
    Outcome,
    average,
    inputs_key,
    measured_tasks,
    meta_outcome,
    needs_specialists,
    outcome,
    pack,
    remembered,
    specialist_outcome,
    unpack,
)


KEY_VERSION = "ablation 9"
"""Changes with the code of this study, so that nothing that older code found is used."""

META_PARTS: dict[str, Change] = {
    "without entropy minimization": {"meta": {"entropy_weight": 0.0}},
    "without the sample filter": {"meta": {"filter": "none"}},
    "without distillation from the experts": {"meta": {"distillation_weight": 0.0}},
    "without test-time augmentation of the experts": {"meta": {"distillation_views": False}},
    "without the agreement rule": {"meta": {"agreement_rule": False}},
    "without the class prior": {"meta": {"prior_weight": 0.0}},
    "with the heads' projection frozen": {"meta": {"train_projection": False}},
    "without trained heads": {"meta": {"train_heads": False}},
    "one coefficient per layer": {"adapter": {"granularity": "layer"}},
    "one coefficient per task": {"adapter": {"granularity": "task"}},
    "with the identity as Phi": {"adapter": {"transform": {"name": "identity"}}},
    "with TIES as Phi": {"adapter": {"transform": {"name": "ties"}}},
}
"""Changes of phase 1 by row. A change that changes nothing is left out."""

SPECIALIST_PARTS: dict[str, Change] = {
    "the expert alone on plain images as teacher": {
        "specialize": {
            "teacher_views": False,
            "ensemble_weight": 0.0,
            "lda_weight": 0.0,
            "prior_strength": 0.0,
            "restore": False,
            "further_experts": False,
            "outside_teachers": False,
            "related_experts": False,
        }
    },
    "without test-time augmentation in the teacher": {"specialize": {"teacher_views": False}},
    "with one expert of each task": {"specialize": {"further_experts": False}},
    "without teachers from outside the pool": {"specialize": {"outside_teachers": False}},
    "without experts of related tasks": {"specialize": {"related_experts": False}},
    "without other models in the teacher": {"specialize": {"ensemble_weight": 0.0}},
    "with other models in the teacher": {"specialize": {"ensemble_weight": 1.0}},
    "without the class prior": {"specialize": {"prior_strength": 0.0}},
    "without LDA": {"specialize": {"lda_weight": 0.0}},
    "without restored images": {"specialize": {"restore": False}},
    "without augmentation of the student's images": {"specialize": {"augmentation": "none", "jitter_steps": 0}},
    "with translations as the only augmentation": {"specialize": {"augmentation": "none"}},
    "without self-training": {"specialize": {"refreshes": 0}},
    "with self-training": {"specialize": {"refreshes": 1}},
    "with all steps however little there is to learn": {"specialize": {"fewer_steps": False}},
    "with 600 steps": {"specialize": {"max_steps": 600}},
    "with batches of 32": {"specialize": {"per_device_train_batch_size": 32}},
    "with representation alignment": {"specialize": {"alignment_weight": 0.5}},
    "without InfoMax": {"specialize": {"infomax_weight": 0.0}},
    "with L2-SP": {"specialize": {"l2_sp_weight": 0.001}},
    "without the moving average of weights": {"specialize": {"ema_decay": 0.0}},
    "with a second round": {"specialize": {"rounds": 2}},
}
"""Changes of phase 2 by row, on the full recipe's meta-model."""


@dataclass
class Row:
    """One line of the table.

    Args:
        name: Name of the change, or of the model.
        average: Mean accuracy over tasks, 0 to 1.
        by_task: Accuracy by task, 0 to 1.
        difference: Mean accuracy minus that of what the row is compared with; `None` for that one itself.
        low, high: 95 % interval of the difference, paired by image.
        p_value: p-value of the difference, two-sided.
    """

    name: str
    average: float
    by_task: dict[str, float]
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None

    @classmethod
    def compare(cls, name: str, found: Outcome, full: Outcome | None = None) -> Row:
        by_task = {task: correct.float().mean().item() for task, correct in found.items()}
        if full is None:
            return cls(name, average(found), by_task)
        return cls(name, average(found), by_task, *paired_interval(found, full), average_p_value(found, full))


def ablate(
    recipe: Recipe,
    output_dir: Path,
    phases: tuple[str, ...],
    progress: Callable[[str], None],
    changes: tuple[Mapping[str, Change], Mapping[str, Change]] = (META_PARTS, SPECIALIST_PARTS),
) -> dict[str, list[Row]]:
    """Run the recipe in full and with one part at a time taken out, and measure each.

    Args:
        recipe: Recipe with evaluation images.
        output_dir: Folder of work in progress; a study that was cut off goes on there.
        phases: `"meta"`, `"specialists"`, or both.
        progress: Called with one line for every row.
        changes: Rows of phase 1 and of phase 2; the default takes one part out at a time.

    Returns:
        Rows by phase, the full recipe first.

    Raises:
        InputError: No task has evaluation images, a change makes options that do not go together, or none of the
            changes changes anything in these phases.
    """
    named = zip(("meta", "specialists"), changes, strict=True)
    meta_changes, specialist_changes = (own if name in phases else {} for name, own in named)
    for change in meta_changes.values():
        _changed(recipe, change).meta_arguments(output_dir)
    for change in specialist_changes.values():
        _changed(recipe, change).specialize_arguments(output_dir)
    if not (meta_changes or specialist_changes):
        raise InputError(f"{recipe.path}: none of the changes is of what --phase names; give others")
    merger = recipe.merger()
    tasks = measured_tasks(merger, str(recipe.path))
    tables: dict[str, list[Row]] = {}
    study = Variants(merger, recipe, output_dir, tasks, progress)
    idle = without_effect(merger) if specialist_changes else ()
    meta_changes = left(meta_changes, recipe, progress)
    specialist_changes = left(specialist_changes, recipe, progress, idle)
    if not (meta_changes or specialist_changes):
        raise InputError(f"{recipe.path}: none of the changes changes anything of what --phase names; give others")
    if meta_changes:
        full = study.meta("in full", {})
        tables["meta"] = [Row.compare("in full", full)]
        for name, change in meta_changes.items():
            tables["meta"].append(Row.compare(name, study.meta(name, change), full))
    if specialist_changes:
        needs_specialists(recipe)
        experts = [task for task in tasks if merger.pool.experts_of(task)]
        full = study.specialists("in full", {})
        tables["specialists"] = [Row.compare("in full", full)]
        tables["specialists"].append(Row.compare("without the gate", study.ungated, full))
        if experts == tasks:
            found = outcome(merger, tasks, merger.expert_tower, merger.expert_head)
            tables["specialists"].append(Row.compare("the experts themselves", found, full))
        for name, change in specialist_changes.items():
            tables["specialists"].append(Row.compare(name, study.specialists(name, change), full))
    return tables


def without_effect(merger: MetaMerger) -> set[str]:
    """Options of phase 2 that change nothing of a pool, for want of what they switch off."""
    found = [merger.experts(task) for task in merger.tasks]
    return {
        name
        for name, having in {
            "further_experts": any(len(experts.heads) > 1 for experts in found),
            "outside_teachers": any(experts.teachers for experts in found),
            "related_experts": any(experts.related for experts in found),
        }.items()
        if not having
    }


class Variants:
    """Variants of one recipe on shared images, heads and caches."""

    def __init__(
        self, merger: MetaMerger, recipe: Recipe, output_dir: Path, tasks: list[str], progress: Callable[[str], None]
    ) -> None:
        self.merger, self.recipe, self.output_dir, self.tasks, self.progress = (
            merger,
            recipe,
            output_dir,
            tasks,
            progress,
        )
        self.ungated: Outcome = {}

    def _key(self, changed: Recipe, kind: str) -> list[Any]:
        parts = [changed.adapter, changed.meta, changed.specialize if kind == "specialists" else None, changed.seed]
        return [KEY_VERSION, kind, self.merger.pool.reference(), inputs_key(self.merger, self.tasks), parts]

    def _fitted(self, changed: Recipe, folder: Path) -> MetaMerger:
        merger = self.merger.variant(MdftConfig(**changed.adapter))
        merger.fit(changed.meta_arguments(folder))
        return merger

    def meta(self, name: str, change: Mapping[str, Any]) -> Outcome:
        self.progress(f"Meta-model, {name}")
        changed, folder = _changed(self.recipe, change), self.output_dir / "meta" / _slug(name)

        def make() -> dict[str, str]:
            return pack(meta_outcome(self._fitted(changed, folder), self.tasks))

        return unpack(remembered(folder / "outcome.json", self._key(changed, "meta"), make))

    def specialists(self, name: str, change: Mapping[str, Any]) -> Outcome:
        self.progress(f"Specialists, {name}")
        changed, folder = _changed(self.recipe, change), self.output_dir / "specialists" / _slug(name)

        def make() -> dict[str, Any]:
            # The same folder for every row: the full recipe's meta-model is trained once.
            merger = self._fitted(self.recipe, self.output_dir / "meta" / _slug("in full"))
            merger.specialize(changed.specialize_arguments(folder), self.tasks)
            kept, ungated = (pack(specialist_outcome(merger, self.tasks, gated)) for gated in (True, False))
            return {"kept": kept, "ungated": ungated}

        found = remembered(folder / "outcome.json", self._key(changed, "specialists"), make)
        if not change:
            self.ungated = unpack(found["ungated"])
        return unpack(found["kept"])


def _changed(recipe: Recipe, change: Mapping[str, Mapping[str, Any]]) -> Recipe:
    merged = {part: {**getattr(recipe, part), **options} for part, options in change.items()}
    for part in merged.keys() - {"adapter"}:
        check_epochs(part, merged[part], f"--change: {part}")
    return dataclasses.replace(recipe, **merged)


LONGEST = 80
"""Letters of a folder's name: file systems refuse 255 bytes."""


def _slug(name: str) -> str:
    slug = "".join(char if char.isalnum() else "-" for char in name.lower()).strip("-")
    return slug if len(slug) <= LONGEST else f"{slug[:LONGEST]}-{key_of(name)[:8]}"


HEADER = ("", "average", "difference", "95 % interval", "p")


def as_markdown(rows: list[Row], by_task: bool = False) -> str:
    """The table: accuracy in percent, difference and interval in points.

    Args:
        rows: Lines of the table.
        by_task: Whether each task has a column too.
    """
    tasks = list(rows[0].by_task) if by_task else []
    lines = []
    for row in rows:
        cells = [row.name, *(f"{100 * row.by_task[task]:.1f}" for task in tasks), f"{100 * row.average:.1f}"]
        if row.difference is None:
            cells += ["", "", ""]
        else:
            interval = f"{100 * row.low:+.2f} to {100 * row.high:+.2f}"
            cells += [f"{100 * row.difference:+.2f}", interval, f"{row.p_value:.2g}"]
        lines.append(cells)
    return markdown_table((HEADER[0], *tasks, *HEADER[1:]), lines)
