"""The label-free decision between specialist and expert."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..cards import Decision
from ..objectives import estimate_prior
from .teacher.ensemble import reliability
from .teacher.observation import Source


LEAST_CONSISTENCY_GAIN = 0.03
"""Least gain in consistency. What views can teach is bounded by how inconsistent the expert is: where little was
gained, the changes are noise."""

LARGEST_DRIFT = 0.02
"""How far, in nats, the specialist's class frequencies may leave what lies between the expert's and the estimated
class prior. Coming closer to the prior is no fault: the largest gains had frequencies far from the expert's."""

LARGEST_DISAGREEMENT = 0.15
"""Share of changed images, net, on which held-out views and other models may agree with the expert rather than with
the specialist."""


def decide(specialist: Source, expert: Source, others: Mapping[str, Source], ensemble_weight: float = 1.0) -> Decision:
    """Choose the specialist where label-free evidence is for it and none against.

    For it: its predictions are more consistent under small translations. Against it: class frequencies that have
    drifted from the expert's and not towards the prior; or less agreement than the expert has, with the expert's own
    predictions on held-out views, that no target was made from, and with the other models, weighted as in the teacher.
    The expert's views share its errors, so agreement leans to the expert and need not be larger.

    Args:
        specialist: Outputs of the specialist on the unlabelled images.
        expert: Outputs of the expert on the same.
        others: Outputs of other models on the same, by name.
        ensemble_weight: Largest weight of another model, as in the teacher.
    """
    gain = specialist.consistency - expert.consistency
    drift = class_drift(specialist, expert)
    agreement = agreement_gain(specialist, expert, others, ensemble_weight)
    spread = agreement.std(correction=min(1, len(agreement) - 1))  # of one image there is none
    lead, error = agreement.mean().item(), (spread / len(agreement) ** 0.5).item()
    changed = (specialist.predictions != expert.predictions).float().mean().item()
    reason = f"{100 * changed:.1f} % of predictions changed, consistency {100 * gain:+.1f} points"
    against = None
    if gain < LEAST_CONSISTENCY_GAIN:
        against = f"{reason}, less than {100 * LEAST_CONSISTENCY_GAIN:.0f}"
    elif drift > LARGEST_DRIFT:
        away = f"by {drift:.3f} nats more than the class prior explains (limit {LARGEST_DRIFT})"
        against = f"class frequencies drifted {away}"
    elif lead < -LARGEST_DISAGREEMENT * changed:
        more = f"{-100 * lead:.1f} +- {100 * error:.1f} points more"
        against = f"held-out views and other models agree {more} with the expert"
    return Decision(
        chosen="specialist" if against is None else "expert",
        consistency_gain=gain,
        drift=drift,
        agreement_gain=lead,
        standard_error=error,
        changed=changed,
        images=len(agreement),
        reason=reason if against is None else f"no improvement shown: {against}",
    )


def agreement_gain(
    specialist: Source, expert: Source, others: Mapping[str, Source], ensemble_weight: float
) -> torch.Tensor:
    """Agreement with the specialist minus that with the expert, in [-1, 1], on every image, `(N,)`: a weighted mean
    over the expert's held-out views, which together have weight 1, and the other models."""
    evidence = [(1 / len(expert.held_out), view) for view in expert.held_out]
    for source in others.values():
        evidence.append((reliability(source, expert, ensemble_weight), source.log_probs.argmax(dim=-1)))
    total = torch.zeros(len(expert.logits))
    for weight, predicted in evidence:
        with_specialist = (specialist.predictions == predicted).float()
        with_expert = (expert.predictions == predicted).float()
        total += weight * (with_specialist - with_expert)
    return total / sum(weight for weight, _ in evidence)


def class_drift(specialist: Source, expert: Source) -> float:
    """How far the specialist's mean prediction q leaves what lies between the expert's, p, and the class prior, r,
    that is estimated from it: the larger one of `KL(r || q) - KL(r || p)` and `KL(q || p) - KL(r || p)`, in nats."""
    prior = estimate_prior(expert.logits.softmax(dim=-1))
    mine, theirs = (source.logits.softmax(dim=-1).mean(dim=0) for source in (specialist, expert))
    between = divergence(prior, theirs)
    return max(divergence(prior, mine), divergence(mine, theirs)) - between


def divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    """`KL(p || q)` in nats, of distributions `(C,)`."""
    return (p * (p.clamp(min=1e-8) / q.clamp(min=1e-8)).log()).sum().item()
