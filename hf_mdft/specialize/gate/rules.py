"""How the evidence decides: each rule a small function of it, and the one that is used."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ...embedding.restoration import ONE_CLASS
from .interpolations import Interpolations
from .words import said


@dataclass(frozen=True)
class Verdict:
    """What a rule decides.

    Args:
        share: How far from expert, 0, to specialist, 1, the kept weights lie.
        reason: Why, in one sentence without a full stop.
    """

    share: float
    reason: str


Rule = Callable[[Interpolations], Verdict]


@dataclass(frozen=True)
class Thresholds:
    """The specialist where label-free evidence is for it and none against.

    Agreement is with held-out views of the expert, which no target was made from, and with other models, weighted by
    their reliability. Where it is larger for the specialist than for the expert, beyond chance, the specialist is
    taken, whatever else changed: so it is under a shift, where held-out views are of restored images. It is also taken
    where its mutual information of image and prediction is higher by `information_gain`, which is evidence only where
    the loss does not train it. Else:

    For it: its predictions are more consistent under small translations. Against it: class frequencies that have
    drifted from the expert's and not towards the prior; or less agreement than the expert has. The expert's views
    share its errors, so agreement leans to the expert and need not be larger.

    Args:
        consistency_gain: Least gain in consistency. What views can teach is bounded by how inconsistent the expert is:
            where little was gained, the changes are noise.
        drift: How far, in nats, the specialist's class frequencies may leave what lies between the expert's and the
            estimated class prior. Coming closer to the prior is no fault: the largest gains had frequencies far from
            the expert's.
        disagreement: Share of changed images, net, on which held-out views and other models may agree with the expert
            rather than with the specialist.
        errors: Standard errors of the agreement beyond which it is for the specialist.
        one_class: Share of the images that the expert takes for one class, from which on they are no evidence: what
            tells classes apart does not show on them.
        least_images: Number of images below which there is no evidence.
        information_gain: Gain in mutual information, of its largest value, that is enough. On images like those of the
            expert's training it changes little, for better and for worse.
    """

    consistency_gain: float = 0.03
    drift: float = 0.02
    disagreement: float = 0.25
    errors: float = 2.0
    one_class: float = ONE_CLASS
    least_images: int = 16
    information_gain: float = 0.02

    def __call__(self, found: Interpolations) -> Verdict:
        if found.images < self.least_images:
            return Verdict(0.0, f"no improvement shown: {found.images} different images are too few to show one")
        if found.largest_class >= self.one_class:
            return Verdict(0.0, f"no improvement shown: the expert takes {found.largest_class:.0%} for one class")
        seen = found.compared()
        reason = (
            f"{100 * seen.changed:.1f} % of predictions changed, consistency {100 * seen.consistency_gain:+.1f} points"
        )
        if seen.agreement_gain > max(0.0, self.errors * seen.standard_error):
            more = f"{100 * seen.agreement_gain:.1f} +- {100 * seen.standard_error:.1f} points more"
            return Verdict(1.0, f"{reason}; held-out views and other models agree {more} with it")
        information = found.score("mutual_information")
        if information > self.information_gain:
            return Verdict(1.0, f"{reason}; {said('mutual_information', information)}")
        against = None
        if seen.consistency_gain < self.consistency_gain:
            against = f"{reason}, less than {100 * self.consistency_gain:.0f}"
        elif seen.drift > self.drift:
            away = f"by {seen.drift:.3f} nats more than the class prior explains (limit {self.drift})"
            against = f"class frequencies drifted {away}"
        elif seen.agreement_gain < -self.disagreement * seen.changed:
            more = f"{-100 * seen.agreement_gain:.1f} +- {100 * seen.standard_error:.1f} points more"
            against = f"held-out views and other models agree {more} with the expert"
        return Verdict(1.0, reason) if against is None else Verdict(0.0, f"no improvement shown: {against}")


@dataclass(frozen=True)
class Above:
    """The specialist where one score of it is large enough.

    Args:
        score: Name of the score.
        least: Value that it must exceed.
    """

    score: str
    least: float = 0.0

    def __call__(self, found: Interpolations) -> Verdict:
        value = found.score(self.score)
        if value > self.least:
            return Verdict(1.0, said(self.score, value))
        return Verdict(0.0, f"no improvement shown: {said(self.score, value)}, needed more than {self.least:+.3g}")


@dataclass(frozen=True)
class Furthest:
    """Weights between expert and specialist, where one score is largest.

    Args:
        score: Name of the score.
        least: Value that it must exceed; else the expert is kept.
    """

    score: str
    least: float = 0.0

    def __call__(self, found: Interpolations) -> Verdict:
        values = found.scores(self.score)
        share = max(values, key=lambda s: (values[s], -s))  # of equals the one nearest to the expert
        value = said(self.score, values[share])
        if values[share] <= self.least:
            return Verdict(0.0, f"no improvement shown: at best {value}, needed more than {self.least:+.3g}")
        return Verdict(share, f"best at {share:.0%} of the way from expert to candidate: {value}")


def without_information(rule: Rule) -> Rule:
    """The same rule for a specialist whose loss makes predictions sure and even: then their mutual information is no
    evidence."""
    return replace(rule, information_gain=math.inf) if isinstance(rule, Thresholds) else rule


RULE: Rule = Thresholds()
"""The rule that is used; its options are part of what a finished specialist is looked up by."""
