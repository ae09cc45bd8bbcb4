"""What is known without labels of a specialist, its expert, and the models between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...objectives.scores import SCORES, Evidence, Outputs
from ...objectives.scores.agreement import agreement_by_image
from ...objectives.scores.class_drift import class_drift
from ...objectives.scores.consistency import consistency


SHARES = (0.25, 0.5, 0.75, 1.0)
"""How far from the expert, 0, to the specialist, 1, the weights may lie that are compared."""


@dataclass(frozen=True)
class Comparison:
    """A model against the expert; the fields are those of `Decision`."""

    consistency_gain: float
    drift: float
    agreement_gain: float
    standard_error: float
    changed: float
    images: int


class Interpolations:
    """Evidence for a specialist, and for weights between it and its expert, each looked at when a rule asks for it.

    Args:
        specialist: Outputs of the specialist.
        expert: Outputs of the expert on the same images.
        others: Weight and predicted classes `(N,)` of every other model.
        between: Gives the outputs of weights at a share in (0, 1) of the way from expert to specialist; without it,
            there is the specialist alone.
    """

    def __init__(
        self,
        specialist: Outputs,
        expert: Outputs,
        others: tuple = (),
        between: Callable[[float], Outputs] | None = None,
    ) -> None:
        self.expert, self.others = expert, others
        self._between = between
        self._outputs: dict[float, Outputs] = {1.0: specialist}

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.expert.predictions)

    @property
    def largest_class(self) -> float:
        """Share of the images that the expert takes for its most frequent class."""
        return self.expert.predictions.bincount().max().item() / self.images

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares that can be looked at."""
        return SHARES if self._between else SHARES[-1:]

    def outputs(self, share: float) -> Outputs:
        """Outputs of the weights at a share of the way from expert to specialist."""
        if share not in self._outputs:
            self._outputs[share] = self._between(share)
        return self._outputs[share]

    def score(self, name: str) -> float:
        """A score of the specialist against the expert."""
        return SCORES.get(name)(self._evidence(1.0))

    def scores(self, name: str) -> dict[float, float]:
        """A score of the weights at every share against the expert; all of them are candidates."""
        logits = tuple(self.outputs(share).logits for share in self.shares)
        score = SCORES.get(name)
        found = {}
        for number, share in enumerate(self.shares):
            found[share] = score(self._evidence(share, logits[:number] + logits[number + 1 :]))
        return found

    def compared(self, share: float = 1.0) -> Comparison:
        """The figures that a decision shows, of the weights at a share."""
        evidence = self._evidence(share)
        agreement = agreement_by_image(evidence)
        spread = agreement.std(correction=min(1, len(agreement) - 1))  # of one image there is none
        changed = evidence.specialist.predictions != evidence.expert.predictions
        return Comparison(
            consistency_gain=consistency(evidence),
            drift=-class_drift(evidence),
            agreement_gain=agreement.mean().item(),
            standard_error=(spread / len(agreement) ** 0.5).item(),
            changed=changed.float().mean().item(),
            images=len(agreement),
        )

    def _evidence(self, share: float, candidates: tuple = ()) -> Evidence:
        return Evidence(self.outputs(share), self.expert, self.others, candidates)
