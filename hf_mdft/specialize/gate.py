"""The label-free decision between specialist and expert."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from ..objectives import estimate_prior
from .teacher import Source, reliability


LEAST_CONSISTENCY_GAIN = 0.03
"""Least gain in stability. What views can teach is bounded by how unstable the expert is: where little was gained, the
changes are noise."""

LARGEST_DRIFT = 0.02
"""How far, in nats, the specialist's class frequencies may leave what lies between the expert's and the estimated
class prior. Coming closer to the prior is no fault: the largest gains had frequencies far from the expert's."""

LARGEST_DISAGREEMENT = 0.15
"""Share of changed images, net, that the judges may give to the expert."""


@dataclass
class Decision:
    """What the gate chose, and why.

    Args:
        chosen: `"specialist"` or `"expert"`.
        consistency_gain: How much larger a share of the specialist's predictions survives small translations.
        drift: How far, in nats, the specialist's class frequencies are from what lies between the expert's and the
            estimated class prior; negative: they are between.
        agreement_gain: Mean over images of judges' weighted votes for the specialist minus those for the expert.
        standard_error: Of the lead.
        changed: Share of images that the two classify differently.
        images: How many images were judged.
        reason: In words.
    """

    chosen: str
    consistency_gain: float
    drift: float
    agreement_gain: float
    standard_error: float
    changed: float
    images: int
    reason: str

    def to_dict(self) -> dict:
        return asdict(self)


def decide(specialist: Source, expert: Source, others: dict[str, Source], ensemble_weight: float = 1.0) -> Decision:
    """Choose the specialist where label-free evidence speaks for it and none against.

    For it: its predictions are stabler under small translations. Against it: class frequencies that have drifted from
    the expert's and not towards the prior; or judges that side with the expert. These are the expert itself on
    views that no target was made from, and the other models as far as the teacher listens to them. The expert's views
    share its errors, so the vote leans to the expert and needs not be won.

    Args:
        specialist: On the unlabelled images.
        expert: On the same.
        others: By name, on the same.
        ensemble_weight: As in the teacher.
    """
    judges = [(1 / len(expert.judged), view) for view in expert.judged]
    for source in others.values():
        judges.append((reliability(source, expert, ensemble_weight), source.log_probs.argmax(dim=-1)))
    votes = torch.zeros(len(expert.logits))
    for weight, judged in judges:
        for_specialist = (specialist.predictions == judged).float()
        for_expert = (expert.predictions == judged).float()
        votes += weight * (for_specialist - for_expert)
    votes = votes / sum(weight for weight, _ in judges)
    lead = votes.mean().item()
    error = (votes.std() / len(votes) ** 0.5).item()
    changed = (specialist.predictions != expert.predictions).float().mean().item()
    gain = specialist.consistency - expert.consistency
    drift = class_drift(specialist, expert)
    found = f"{100 * changed:.1f} % of predictions changed and {100 * gain:+.1f} points more of them are stable"
    if gain < LEAST_CONSISTENCY_GAIN:
        reason = f"no improvement shown: {found}, fewer than {100 * LEAST_CONSISTENCY_GAIN:.0f}"
    elif drift > LARGEST_DRIFT:
        away = f"by {drift:.3f} nats more than the class prior explains (limit {LARGEST_DRIFT})"
        reason = f"no improvement shown: class frequencies drifted {away}"
    elif lead < -LARGEST_DISAGREEMENT * changed:
        reason = f"no improvement shown: the judges prefer the expert by {-100 * lead:.1f} +- {100 * error:.1f} points"
    else:
        return Decision("specialist", gain, drift, lead, error, changed, len(votes), found)
    return Decision("expert", gain, drift, lead, error, changed, len(votes), reason)


def class_drift(specialist: Source, expert: Source) -> float:
    """How far the specialist's mean prediction q leaves what lies between the expert's, p, and the class prior, r,
    that is estimated from it: the larger one of `KL(r || q) - KL(r || p)` and `KL(q || p) - KL(r || p)`, in nats."""
    prior = estimate_prior(expert.logits.softmax(dim=-1))
    mine, theirs = (source.logits.softmax(dim=-1).mean(dim=0) for source in (specialist, expert))
    between = divergence(prior, theirs)
    return max(divergence(prior, mine), divergence(mine, theirs)) - between


def divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    """`KL(p || q)` in nats."""
    return (p * (p.clamp(min=1e-8) / q.clamp(min=1e-8)).log()).sum().item()
