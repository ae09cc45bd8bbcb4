"""The whole study: candidates of some recipes, and tables of scores and rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import InputError, suggest
from ...objectives.scores import SCORES
from ...recipes.schema import Recipe
from ..named import by_name
from .candidates import Workshop
from .policies import (
    MOST_LOSS,
    RULES,
    Candidate,
    Proposal,
    Result,
    above,
    applied,
    choose_threshold,
    halves,
    spearman,
    within_tasks,
)
from .settings import SETTINGS


@dataclass(frozen=True)
class ScoreRow:
    """How a score follows the true gain, over all candidates.

    Args:
        score: Its name.
        spearman: Rank correlation with the gain.
        within_tasks: The same within each task of each recipe, on average.
        sign: Share of the candidates whose gain has the sign of the score; where the gain is 0, either is right.
    """

    score: str
    spearman: float | None
    within_tasks: float | None
    sign: float


@dataclass(frozen=True)
class RuleRow:
    """What a rule gives.

    Args:
        rule: Its name.
        everywhere: On all candidates.
        reported: On the tasks that no threshold was chosen on.
    """

    rule: str
    everywhere: Result | None
    reported: Result | None


@dataclass(frozen=True)
class ThresholdRow:
    """What a score gives with a threshold.

    Args:
        score: Its name.
        threshold: Threshold with the largest gain on the tasks that thresholds are chosen on.
        chosen: What it gives there.
        reported: What it gives on the other tasks.
        careful_threshold, careful_chosen, careful_reported: The same for the threshold with the largest gain among
            those that keep no loss of more than one point where they are chosen.
    """

    score: str
    threshold: float
    chosen: Result | None
    reported: Result | None
    careful_threshold: float
    careful_chosen: Result | None
    careful_reported: Result | None


@dataclass(frozen=True)
class GateStudy:
    """Everything that the study found.

    Args:
        candidates: The candidates.
        chosen_on: Tasks that thresholds are chosen on.
        reported_on: Tasks that they are reported on.
        scores: How each score follows the gain.
        rules: What rules without a threshold give.
        yes_or_no: What each score gives where the candidate is kept above a threshold.
        how_far: What each gives where the share with the largest score is kept above a threshold.
    """

    candidates: list[Candidate]
    chosen_on: list[str]
    reported_on: list[str]
    scores: list[ScoreRow]
    rules: list[RuleRow]
    yes_or_no: list[ThresholdRow]
    how_far: list[ThresholdRow]


def gate_study(
    recipes: Sequence[Path],
    output_dir: Path,
    progress: Callable[[str], None],
    *,
    images: Sequence[int | None] = (64, 256, None),
    settings: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    max_steps: int | None = None,
) -> GateStudy:
    """Make candidates, score each without labels, measure each with them, and see what rules would have kept.

    Args:
        recipes: Recipe files; a task is measured where it has evaluation images and an expert.
        output_dir: Folder of work in progress; a study that was cut off goes on there.
        progress: Called with one line for every candidate.
        images: Numbers of unlabelled images; `None` is all.
        settings: Names of `SETTINGS`; the default is all.
        tasks: Names of the tasks, in whatever recipe has them; the default is all.
        max_steps: Most steps of each phase; the default is what the recipe says.

    Raises:
        InputError: There is nothing to measure, a name is unknown, or two recipes would share a folder.
    """
    chosen = list(settings or SETTINGS)
    for name in chosen:
        if name not in SETTINGS:
            raise InputError(f"unknown setting '{name}': {suggest(name, SETTINGS)}")
    workshops = [
        Workshop(name, Recipe.load(path), output_dir / name, max_steps, progress)
        for name, path in by_name(recipes).items()
    ]
    known = {task for workshop in workshops for task in workshop.tasks}
    for task in tasks or ():
        if task not in known:
            raise InputError(f"unknown task '{task}': {suggest(task, known)}")
    if not known:
        raise InputError("no task with evaluation images has an expert to compare with")
    found = [
        Candidate.of(made)
        for workshop in workshops
        for task in workshop.tasks
        if tasks is None or task in tasks
        for made in workshop.candidates(task, chosen, list(images))
    ]
    return tables(found)


def tables(candidates: list[Candidate]) -> GateStudy:
    """The tables of some candidates."""
    chosen_on, reported_on = halves(candidates)
    mine = [candidate for candidate in candidates if candidate.task in chosen_on]
    rest = [candidate for candidate in candidates if candidate.task in reported_on]
    rules = dict(RULES)
    for name in SCORES.names():
        rules[f"{name} above 0"] = above(_of_candidate(name), 0.0)
        rules[f"share with the best {name}, above 0"] = above(_of_best_share(name), 0.0)
    return GateStudy(
        candidates=candidates,
        chosen_on=chosen_on,
        reported_on=reported_on,
        scores=[_score_row(name, candidates) for name in SCORES.names()],
        rules=[RuleRow(name, applied(rule, candidates), applied(rule, rest)) for name, rule in rules.items()],
        yes_or_no=[_threshold_row(name, _of_candidate(name), mine, rest) for name in SCORES.names()],
        how_far=[_threshold_row(name, _of_best_share(name), mine, rest) for name in SCORES.names()],
    )


def _of_candidate(score: str) -> Proposal:
    return lambda candidate: (1.0, candidate.score[score])


def _of_best_share(score: str) -> Proposal:
    return lambda candidate: candidate.best(score)


def _score_row(name: str, candidates: list[Candidate]) -> ScoreRow:
    values, gains = [c.score[name] for c in candidates], [c.gain for c in candidates]
    right = sum(gain == 0 or (value > 0) == (gain > 0) for value, gain in zip(values, gains, strict=True))
    within = within_tasks(candidates, lambda candidate: candidate.score[name])
    return ScoreRow(name, spearman(values, gains), within, right / len(candidates))


def _threshold_row(name: str, proposal: Proposal, mine: list[Candidate], rest: list[Candidate]) -> ThresholdRow:
    found = []
    for most_loss in (None, MOST_LOSS):
        threshold = choose_threshold(proposal, mine, most_loss)
        rule = above(proposal, threshold)
        found += [threshold, applied(rule, mine), applied(rule, rest)]
    return ThresholdRow(name, *found)
