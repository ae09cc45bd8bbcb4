"""Whether a task's images can be evidence at all: enough different ones, of most classes, and the task's own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ...embedding import expert_features
from ...experts import Source
from ...objectives.prior import estimate_prior
from ..teacher import Models


LEAST_DIFFERENT = 16
"""Clearly different images below which nothing is shown."""

LEAST_COVERAGE = 0.37
"""Least effective number of classes, in shares of what as many images, evenly drawn, would have. Of even sets it was
0.43 to 0.97, under a shift as well; of images of one class 0.34 at most."""

BETTER = 1.1
"""How many times as informative, of its largest value, another task's expert must be to be the better one, beside
knowing more in nats: an expert of two classes is sure of anything. With images of another task it was 1.15 to 8 times,
with a task's own 1.02 at most."""

LOOKED_AT, LEAST_LOOKED_AT, LOOKS = 256, 32, 4096
"""Images that each expert of another task looks at: fewer where there are many, so that all of them take no more than
so many forward passes, but not below the least. (Of few images, information comes out lower: the expert is kept less
easily.)"""

LIMITS = (LEAST_DIFFERENT, LEAST_COVERAGE, BETTER, LOOKED_AT, LEAST_LOOKED_AT, LOOKS)
"""What a decision depends on, beside the rule."""


@dataclass(frozen=True)
class Familiarity:
    """What is known, without labels, of the images themselves.

    Args:
        different: Number of clearly different ones.
        coverage: Effective number of classes among them, the exponential of the entropy of the class prior that the
            teacher's reference predicts, in shares of what even draws would give (Miller 1955: the entropy of N draws
            from C classes falls short by `(C - 1) / 2N`).
        information: Mutual information of image and the reference's prediction, of its largest value `ln C`.
        other: The expert of another task whose predictions are most informative, of those that know more in nats;
            `None` where there is none. Of a task without an expert nothing but the first is known.
        other_information: Its mutual information, likewise.
    """

    different: int
    coverage: float = 1.0
    information: float = 1.0
    other: str | None = None
    other_information: float = 0.0

    def against(self) -> str | None:
        """Why nothing that is learned from them is kept, in words; `None` where nothing speaks against them."""
        if self.different < LEAST_DIFFERENT:
            return f"{self.different} clearly different images are too few to show an improvement"
        if self.coverage < LEAST_COVERAGE:
            return f"the images are of few classes: as if of {self.coverage:.0%} of them"
        if self.other is not None and self.other_information > BETTER * self.information:
            return (
                f"the expert of '{self.other}' knows the images better ({100 * self.other_information:.0f} % of its "
                f"information, against {100 * self.information:.0f} %): they may be of another task"
            )
        return None


@torch.no_grad()
def familiarity(models: Models, reference: Source) -> Familiarity:
    """What is known of a task's images.

    Args:
        models: The task's models and images.
        reference: Outputs of the teacher's reference on all of the images.
    """
    different = models.images.different()
    if not models.has_expert:  # what the meta-model predicts for a task that it was not made for tells no classes
        return Familiarity(different)
    found = reference.logits.softmax(dim=-1)
    prior = estimate_prior(found, "em")
    count = len(prior)
    even = max(math.log(count) - (count - 1) / (2 * len(found)), math.log(2))
    coverage = math.exp(-(prior * prior.log()).sum().item() - even)
    strangers = models.experts.strangers
    most = max(LEAST_LOOKED_AT, min(LOOKED_AT, LOOKS // max(1, len(strangers))))
    rows = torch.linspace(0, len(models.images) - 1, min(most, len(models.images))).round().long()
    images, others = models.images.subset(rows), {}
    known = information(found)
    for expert, head in strangers.items():
        (features,) = expert_features(models.pool, expert, images, device=models.device)
        theirs = information(head(features).softmax(dim=-1))
        if theirs * math.log(head.num_classes) > known * math.log(count):
            others[expert] = theirs
    best = max(others, key=others.__getitem__, default=None)
    return Familiarity(different, coverage, known, best, others.get(best, 0.0))


def information(probabilities: torch.Tensor) -> float:
    """Mutual information of image and prediction `(N, C)`, in shares of `ln C`."""
    probabilities = probabilities.double()
    mean = probabilities.mean(dim=0)
    whole = -(mean * mean.clamp_min(1e-12).log()).sum()
    each = -(probabilities * probabilities.clamp_min(1e-12).log()).sum(dim=-1).mean()
    return (whole - each).item() / math.log(probabilities.shape[-1])
