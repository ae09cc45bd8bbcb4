"""Whether, and how far, a task's images can be evidence: enough different ones, of most classes, the task's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...experts import Source
from ...objectives.prior import LEAST_EVENNESS, class_shares, effective_classes, estimate_prior
from ..teacher import Models
from .strangers import LEAST_LOOKED_AT, LOOKED_AT, LOOKS, information


LEAST_DIFFERENT = 16
"""Clearly different images below which nothing is shown."""

LEAST_COVERAGE = 0.37
"""Least effective number of classes, in shares of what as many images, evenly drawn, would have. Of even sets it was
0.43 to 0.97, under a shift as well; of images of one class 0.34 at most."""

PART = 0.3
"""How far from the expert, 0, to the specialist, 1, the kept weights lie where classes are uneven."""

BETTER = 1.1
"""How many times as informative, of its largest value, another task's expert must be to be the better one, beside
knowing more in nats: an expert of two classes is sure of anything. With images of another task it was 1.15 to 8 times,
with a task's own 1.02 at most."""

LIMITS = (LEAST_DIFFERENT, LEAST_COVERAGE, LEAST_EVENNESS, PART, BETTER, LOOKED_AT, LEAST_LOOKED_AT, LOOKS)
"""What a decision depends on, beside the rule."""


@dataclass(frozen=True)
class Familiarity:
    """What is known, without labels, of the images themselves.

    Args:
        different: Number of clearly different ones.
        coverage: Effective number of classes among them, the exponential of the entropy of the class prior that the
            teacher's reference predicts, in shares of what even draws would give.
        evenness: The same of the classes that it takes the images for, each image counted once. Where the expert errs
            often it is higher than that of the true classes, but it does not depend on how sure the expert is. 1 where
            the images were restored, which explains it: an expert's predictions are uneven under a shift as well.
        information: Mutual information of image and the reference's prediction, of its largest value `ln C`.
        other: The expert of another task whose predictions are most informative, of those that know more in nats;
            `None` where there is none. Of a task without an expert nothing but the first is known.
        other_information: Its mutual information, likewise.
    """

    different: int
    coverage: float = 1.0
    evenness: float = 1.0
    information: float = 1.0
    other: str | None = None
    other_information: float = 0.0

    def against(self) -> str | None:
        """Why nothing that is learned from them is kept, in words; `None` where nothing speaks against them."""
        if self.different < LEAST_DIFFERENT:
            return f"too few clearly different images to show an improvement: {self.different}"
        if self.coverage < LEAST_COVERAGE:
            return f"the images are of few classes: as if of {self.coverage:.0%} of them"
        if self.other is not None and self.other_information > BETTER * self.information:
            return (
                f"the expert of '{self.other}' knows the images better ({100 * self.other_information:.0f} % of its "
                f"information, against {100 * self.information:.0f} %): they may be of another task"
            )
        return None

    @property
    def furthest(self) -> float:
        """How far from the expert, 0, to the specialist, 1, the kept weights may lie.

        What is learned from uneven classes can cost accuracy on the rare ones, which few of the same images show. A
        part of the way much of the gain is there, and little of that loss: accuracy of weights between a model and its
        fine-tune lies above the straight line between the two accuracies, the more so on images of another
        distribution (Wortsman et al. 2021, https://huggingface.co/papers/2109.01903).
        """
        return PART if self.evenness < LEAST_EVENNESS else 1.0


def familiarity(models: Models, reference: Source, strangers: Mapping[str, float]) -> Familiarity:
    """What is known of a task's images.

    Args:
        models: The task's models and images.
        reference: Outputs of the teacher's reference on all of the images.
        strangers: Information of the experts of other tasks on some of the images, by name: `information_by_others`.
    """
    different = models.images.different()
    if not models.has_expert:  # what the meta-model predicts for a task that it was not made for tells no classes
        return Familiarity(different)
    found = reference.logits.softmax(dim=-1)
    count = found.shape[-1]
    coverage = effective_classes(estimate_prior(found, "em"), len(found))
    evenness = 1.0 if models.restorations else effective_classes(class_shares(reference.logits), len(found))
    known, heads = information(found), models.experts.strangers
    others = {
        expert: theirs
        for expert, theirs in strangers.items()
        if theirs * math.log(heads[expert].num_classes) > known * math.log(count)
    }
    best = max(others, key=others.__getitem__, default=None)
    return Familiarity(different, coverage, evenness, known, best, others.get(best, 0.0))
