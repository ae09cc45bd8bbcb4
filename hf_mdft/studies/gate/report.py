"""The study as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.tables import markdown_table
from .policies import Candidate, Result
from .settings import SETTINGS
from .study import GateStudy, ThresholdRow


RESULT = ("right", "worst kept loss", "gain kept", "mean gain")


def as_markdown(study: GateStudy) -> dict[str, str]:
    """Tables by title: accuracies in percent, gains and losses in points."""
    return {
        f"{len(study.candidates)} candidates": _candidates(study.candidates),
        "Scores against the true gain": markdown_table(
            ("score", "Spearman", "within tasks", "sign right"),
            [[row.score, _number(row.spearman), _number(row.within_tasks), f"{row.sign:.0%}"] for row in study.scores],
        ),
        "Rules without a threshold to choose": markdown_table(
            ("rule", *(f"{column}, all" for column in RESULT), *(f"{column}, other half" for column in RESULT)),
            [[row.rule, *_cells(row.everywhere), *_cells(row.reported)] for row in study.rules],
        ),
        f"The candidate above a threshold, {_split(study)}": _thresholds(study.yes_or_no),
        f"The share with the best score above a threshold, {_split(study)}": _thresholds(study.how_far),
    }


def _split(study: GateStudy) -> str:
    return f"chosen on {', '.join(study.chosen_on)}; other half: {', '.join(study.reported_on) or 'no other task'}"


def _candidates(candidates: Sequence[Candidate]) -> str:
    rows = []
    for recipe, name in sorted({(c.recipe, c.setting) for c in candidates}, key=lambda key: (key[0], _place(key[1]))):
        gains = [c.gain for c in candidates if (c.recipe, c.setting) == (recipe, name)]
        worse = sum(gain < 0 for gain in gains)
        figures = (f"{value:+.1f}" for value in (sum(gains) / len(gains), min(gains), max(gains)))
        rows.append([recipe, f"{name}: {SETTINGS[name].about}", len(gains), worse, *figures])
    header = ("recipe", "setting", "candidates", "worse than the expert", "mean gain", "worst", "best")
    return markdown_table(header, rows)


def _place(setting: str) -> int:
    return list(SETTINGS).index(setting)


def _thresholds(rows: Sequence[ThresholdRow]) -> str:
    header = ["score", "threshold", *(f"{column}, other half" for column in RESULT)]
    header += ["careful threshold", *(f"{column}, other half" for column in RESULT)]
    lines = [
        [row.score, f"{row.threshold:+.4g}", *_cells(row.reported)]
        + [f"{row.careful_threshold:+.4g}", *_cells(row.careful_reported)]
        for row in rows
    ]
    return markdown_table(header, lines)


def _cells(found: Result | None) -> list[str]:
    if found is None:
        return ["-"] * len(RESULT)
    kept = "-" if found.kept is None else f"{found.kept:.0%}"
    return [f"{found.right:.0%}", f"{found.worst:.1f}", kept, f"{found.gain:+.2f}"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"
