"""The whole study: every value of every choice, and the one that the other tasks would choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ...core.errors import InputError, suggest
from ...recipes.schema import Recipe
from ..named import by_name
from ..outcome import Outcome, average
from .bench import Bench
from .choices import CHOICES, Setting
from .comparison import chosen_elsewhere, compared, task_of


@dataclass(frozen=True)
class TeacherRow:
    """One value of one choice.

    Args:
        choice: Name of the choice.
        value: The value; `None`: for each task the one that is best, on average, on the tasks of other names.
        present: Whether it is what all recipes have now.
        by_task: Accuracy of the teacher by recipe and task, 0 to 1.
        average: Their mean.
        difference: Mean accuracy minus that of the recipes as they are.
        low, high: 95 % interval of the difference, paired by image.
        p_value: p-value of the difference, two-sided.
    """

    choice: str
    value: str | None
    present: bool
    by_task: dict[str, float]
    average: float
    difference: float
    low: float
    high: float
    p_value: float


def teacher_study(
    files: Sequence[Path],
    output_dir: Path,
    progress: Callable[[str], None],
    *,
    choices: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
) -> list[TeacherRow]:
    """Accuracy of the targets that a student would learn, on evaluation images taken as unlabelled ones.

    Labels are read to measure, and to choose a value for every task on the others.

    Args:
        files: Recipes with evaluation images; the meta-model of each is trained where a value needs it.
        output_dir: Folder of work in progress; a study that was cut off goes on there.
        progress: Called with one line for every choice.
        choices: Names in `CHOICES`; the default is all.
        tasks: Names of the tasks that are looked at; the default is all.

    Raises:
        InputError: A choice or task is unknown, two recipes have the same name, or one of them has no
            evaluation images or makes no specialists.
    """
    for choice in choices or ():
        if choice not in CHOICES:
            raise InputError(f"unknown choice '{choice}': {suggest(choice, CHOICES)}")
    benches = [Bench(name, Recipe.load(file), output_dir / name) for name, file in by_name(files).items()]
    known = {task for bench in benches for task in bench.tasks}
    for task in tasks or ():
        if task not in known:
            raise InputError(f"unknown task '{task}': {suggest(task, known)}")

    def measured(name: str, setting: Setting) -> Outcome:
        return {key: found for bench in benches for key, found in bench.outcome(name, setting, tasks or known).items()}

    present, rows = measured("present", {}), []
    for choice in choices or CHOICES:
        progress(f"Teacher: {choice}")
        found = {value: measured(f"{choice}-{value}", setting) for value, setting in CHOICES[choice].items()}
        if all(torch.equal(own[key], present[key]) for own in found.values() for key in own):
            progress(f"  It changes nothing of these {len(present)} tasks")
            continue
        now = [value for value in found if not any(bench.changed(CHOICES[choice][value]) for bench in benches)]
        rows += [_row(choice, value, value in now, own, present) for value, own in found.items()]
        if len({task_of(key) for key in present}) > 1:
            rows.append(_row(choice, None, False, chosen_elsewhere(found, *now), present))
    return rows


def _row(choice: str, value: str | None, present: bool, found: Outcome, now: Outcome) -> TeacherRow:
    by_task = {key: correct.float().mean().item() for key, correct in found.items()}
    return TeacherRow(choice, value, present, by_task, average(found), *compared(found, now))
