"""What a rule would have kept of each candidate, and what that would have given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...specialize.gate import SHARES


MOST_LOSS = 1.0
"""Largest loss, in points, that a careful threshold may keep on the tasks that it is chosen on."""


@dataclass(frozen=True)
class Candidate:
    """A candidate with its scores and its true gains.

    Args:
        recipe, task, setting: What it was made from, and how.
        images: Number of unlabelled images.
        gains: Points over the expert on the evaluation images, by share of the way from expert, 0, to candidate, 1.
        score: Scores of the candidate by name.
        scores: Scores of the weights at each share in (0, 1], by name.
        accepted: Whether the rule that is used would take the weights at each share for the candidate.
        kept_share: Share that the rule that is used keeps.
    """

    recipe: str
    task: str
    setting: str
    images: int
    gains: dict[float, float]
    score: dict[str, float]
    scores: dict[str, dict[float, float]]
    accepted: dict[float, bool]
    kept_share: float

    @classmethod
    def of(cls, found: dict[str, Any]) -> Candidate:
        """From what was stored."""
        accuracy = {float(s): 100 * hits.count("1") / len(hits) for s, hits in found["correct"].items()}
        return cls(
            **{name: found[name] for name in ("recipe", "task", "setting", "images", "score", "kept_share")},
            gains={share: value - accuracy[0.0] for share, value in accuracy.items()},
            scores={name: {float(s): v for s, v in by.items()} for name, by in found["scores"].items()},
            accepted={float(share): taken for share, taken in found["accepted"].items()},
        )

    @property
    def gain(self) -> float:
        """Points of the candidate over the expert."""
        return self.gains[1.0]

    def best(self, score: str) -> tuple[float, float]:
        """The share where a score is largest, and its value there; of equals the one nearest to the expert."""
        by = self.scores[score]
        share = max(sorted(by), key=lambda s: by[s])
        return share, by[share]


Policy = Callable[[Candidate], float]
"""Share of the way from expert to candidate that is kept."""

RULES: dict[str, Policy] = {
    "always the candidate": lambda c: 1.0,
    "always the expert": lambda c: 0.0,
    "best of the two (oracle)": lambda c: float(c.gain > 0),
    "best share (oracle)": lambda c: max(c.gains, key=lambda s: (c.gains[s], -s)),
    **{f"always {share:.0%} of the way": (lambda c, s=share: s) for share in SHARES[:-1]},
    "the rule that is used": lambda c: c.kept_share,
    "the largest share that it accepts": lambda c: max([0.0, *(s for s, taken in c.accepted.items() if taken)]),
}
"""Rules without a threshold to choose."""


@dataclass(frozen=True)
class Result:
    """What a rule gives on some candidates.

    Args:
        cases: Number of candidates.
        right: Share where what is kept is at least as accurate as the better one of expert and candidate.
        worst: Largest loss of what is kept against the expert, in points.
        gain: Mean points over the expert.
        kept: Gain over the largest possible one, that of keeping the better one of expert and candidate every time;
            `None` where no candidate gains.
    """

    cases: int
    right: float
    worst: float
    gain: float
    kept: float | None


def result(shares: Sequence[float], candidates: Sequence[Candidate]) -> Result | None:
    """What is given by keeping each candidate's weights at its share; `None` without candidates."""
    if not candidates:
        return None
    gains = [candidate.gains[share] for share, candidate in zip(shares, candidates, strict=True)]
    best = [max(0.0, candidate.gain) for candidate in candidates]
    right = sum(gain >= most - 1e-9 for gain, most in zip(gains, best, strict=True))
    return Result(
        len(gains),
        right / len(gains),
        max(0.0, -min(gains)),
        sum(gains) / len(gains),
        sum(gains) / sum(best) if sum(best) > 0 else None,
    )


def applied(policy: Policy, candidates: Sequence[Candidate]) -> Result | None:
    """What a rule gives."""
    return result([policy(candidate) for candidate in candidates], candidates)


Proposal = Callable[[Candidate], tuple[float, float]]
"""A share, and the score there: kept where it exceeds a threshold, else the expert is."""


def above(proposal: Proposal, threshold: float) -> Policy:
    """The rule that keeps what is proposed where its score exceeds the threshold."""

    def policy(candidate: Candidate) -> float:
        share, score = proposal(candidate)
        return share if score > threshold else 0.0

    return policy


def choose_threshold(proposal: Proposal, candidates: Sequence[Candidate], most_loss: float | None = None) -> float:
    """The threshold with the largest gain on these candidates; of equals the largest, which keeps the fewest.

    Args:
        proposal: What is kept above the threshold.
        candidates: The candidates.
        most_loss: Largest loss, in points, that may be kept.
    """
    values = sorted({proposal(candidate)[1] for candidate in candidates})
    below = values[0] - max(1e-6, (values[-1] - values[0]) / 2)
    thresholds = [below, *((a + b) / 2 for a, b in zip(values, values[1:], strict=False)), values[-1]]

    def gain(threshold: float) -> float:
        found = applied(above(proposal, threshold), candidates)
        return found.gain if most_loss is None or found.worst <= most_loss + 1e-9 else -torch.inf

    return max(thresholds, key=lambda t: (round(gain(t), 9), t))


def halves(candidates: Sequence[Candidate]) -> tuple[list[str], list[str]]:
    """Names of the tasks that thresholds are chosen on, and of those that they are reported on: by turns in
    alphabetical order, so that a task of several recipes is in one half."""
    names = sorted({candidate.task for candidate in candidates})
    return names[::2], names[1::2]


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Rank correlation, equal values sharing their mean rank; `None` where one of the two is constant."""
    x, y = (_ranks(torch.tensor(values, dtype=torch.float64)) for values in (a, b))
    x, y = x - x.mean(), y - y.mean()
    size = (x.square().sum() * y.square().sum()).sqrt().item()
    return (x * y).sum().item() / size if size > 1e-12 else None


def _ranks(values: torch.Tensor) -> torch.Tensor:
    lower = (values[None] < values[:, None]).sum(dim=1)
    equal = (values[None] == values[:, None]).sum(dim=1)
    return lower.double() + (equal - 1) / 2


def within_tasks(candidates: Sequence[Candidate], value: Callable[[Candidate], float]) -> float | None:
    """Mean over recipes and tasks of the rank correlation of a value with the true gain."""
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault((candidate.recipe, candidate.task), []).append(candidate)
    found = [spearman([value(c) for c in group], [c.gain for c in group]) for group in groups.values()]
    known = [one for one in found if one is not None]
    return sum(known) / len(known) if known else None
