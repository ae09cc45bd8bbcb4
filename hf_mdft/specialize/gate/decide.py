"""The label-free decision between specialist and expert."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ...cards import Decision
from ...experts import Source
from ..teacher.ensemble import reliability
from .familiarity import Familiarity
from .interpolations import Interpolations
from .rules import RULE, Rule, Verdict


def decide(
    specialist: Source,
    expert: Source,
    others: Mapping[str, Source],
    between: Callable[[float], Source] | None = None,
    rule: Rule = RULE,
    reference: Source | None = None,
    given: Familiarity | None = None,
) -> Decision:
    """Choose the specialist, the expert, or weights between them, without labels.

    Args:
        specialist: Outputs of the specialist on the unlabelled images.
        expert: Outputs of the expert on the same.
        others: Outputs of other models on the same, by name.
        between: Gives outputs of the weights at a share of the way from expert to specialist; it is called for those
            shares only that the rule asks for.
        rule: How the evidence decides.
        reference: The teacher's reference, where it is not the expert on the same images: others are weighed by it.
        given: What is known of the images; where something speaks against them, the expert is kept, and where their
            classes are uneven, weights between the two are compared with it instead of the specialist's.
    """
    against = None if given is None else given.against()
    if specialist.log_probs.isnan().any():
        against = "the specialist's outputs are no finite numbers"
    furthest = given.furthest if given is not None and between is not None and against is None else 1.0
    if furthest < 1:
        specialist, between = between(furthest), _shortened(between, furthest)
    found = Interpolations(specialist, expert, weigh(others, reference or expert), between)
    verdict = rule(found) if against is None else Verdict(0.0, f"no improvement shown: {against}")
    kept = verdict.share * furthest
    uneven = f"; classes of the images are uneven, as if of {given.evenness:.0%} of them" if furthest < 1 else ""
    return Decision(
        chosen="specialist" if kept else "expert",
        **vars(found.compared(verdict.share or 1.0)),
        reason=f"{verdict.reason}{uneven}",
        interpolation=kept if 0 < kept < 1 else None,
    )


def _shortened(between: Callable[[float], Source], furthest: float) -> Callable[[float], Source]:
    return lambda share: between(share * furthest)


def weigh(others: Mapping[str, Source], expert: Source) -> tuple[tuple[float, torch.Tensor], ...]:
    """Weight, by their reliability beside the expert, and predicted classes `(N,)` of other models."""
    return tuple((reliability(source, expert), source.log_probs.argmax(dim=-1)) for source in others.values())
