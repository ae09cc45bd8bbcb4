"""The label-free decision between specialist and expert."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from ..objectives import estimate_prior
from .teacher import Source, reliability


STABLER_BY = 0.03
"""Least gain in stability. What views can teach is bounded by how unstable the expert is: where little was gained, the
changes are noise."""

LARGEST_DRIFT = 0.02
"""How much farther from the estimated class prior, in nats, the specialist's class frequencies may be than the
expert's. Coming closer is no fault: the largest gains had frequencies far from the expert's but nearer to it."""

LARGEST_OPPOSITION = 0.15
"""Share of changed images, net, that the judges may give to the expert."""


@dataclass
class Decision:
    """What the gate chose, and why.

    Args:
        chosen: `"specialist"` or `"expert"`.
        stability_gain: How much larger a share of the specialist's predictions survives small translations.
        drift: How much farther from the estimated class prior the specialist's class frequencies are than the
            expert's, in nats; negative: nearer.
        lead: Mean over images of judges' weighted votes for the specialist minus those for the expert.
        standard_error: Of the lead.
        changed: Share of images that the two classify differently.
        images: How many images were judged.
        reason: In words.
    """

    chosen: str
    stability_gain: float
    drift: float
    lead: float
    standard_error: float
    changed: float
    images: int
    reason: str

    def to_dict(self) -> dict:
        return asdict(self)


def decide(specialist: Source, expert: Source, others: dict[str, Source], others_weight: float = 1.0) -> Decision:
    """Choose the specialist where label-free evidence speaks for it and none against.

    For it: its predictions are stabler under small translations. Against it: class frequencies that have drifted away
    from the prior; or judges that side with the expert. These are the expert itself on views that no target was made
    from, and the other models as far as the teacher listens to them. The expert's views share its errors, so the vote
    leans to the expert and needs not be won.

    Args:
        specialist: On the unlabelled images.
        expert: On the same.
        others: By name, on the same.
        others_weight: As in the teacher.
    """
    judges = [(1 / len(expert.judged), view) for view in expert.judged]
    for source in others.values():
        judges.append((reliability(source, expert, others_weight), source.log_probs.argmax(dim=-1)))
    votes = torch.zeros(len(expert.logits))
    for weight, judged in judges:
        for_specialist = (specialist.predictions == judged).float()
        for_expert = (expert.predictions == judged).float()
        votes += weight * (for_specialist - for_expert)
    votes = votes / sum(weight for weight, _ in judges)
    lead = votes.mean().item()
    error = (votes.std() / len(votes) ** 0.5).item()
    changed = (specialist.predictions != expert.predictions).float().mean().item()
    gain = specialist.stability - expert.stability
    drift = class_drift(specialist, expert)
    found = f"{100 * changed:.1f} % of predictions changed and {100 * gain:+.1f} points more of them are stable"
    if gain < STABLER_BY:
        reason = f"no improvement shown: {found}, fewer than {100 * STABLER_BY:.0f}"
    elif drift > LARGEST_DRIFT:
        away = f"{drift:.3f} nats off the prior, more than {LARGEST_DRIFT}"
        reason = f"no improvement shown: class frequencies drifted {away}"
    elif lead < -LARGEST_OPPOSITION * changed:
        reason = f"no improvement shown: the judges prefer the expert by {-100 * lead:.1f} +- {100 * error:.1f} points"
    else:
        return Decision("specialist", gain, drift, lead, error, changed, len(votes), found)
    return Decision("expert", gain, drift, lead, error, changed, len(votes), reason)


def class_drift(specialist: Source, expert: Source) -> float:
    """`KL(prior || specialist's mean prediction) - KL(prior || expert's)` in nats, on the images as they are, with the
    prior as it is estimated from the expert."""
    prior = estimate_prior(expert.logits.softmax(dim=-1))
    mine, theirs = (source.logits.softmax(dim=-1).mean(dim=0).clamp(min=1e-8) for source in (specialist, expert))
    return (prior * (theirs.log() - mine.log())).sum().item()
