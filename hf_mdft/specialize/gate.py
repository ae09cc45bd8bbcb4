"""The label-free decision between specialist and expert."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from .teacher import Source, reliability


THRESHOLD = 2.0
"""Standard errors by which the specialist must lead: about one false acceptance in fifty where nothing differs."""


@dataclass
class Decision:
    """What the gate chose, and why.

    Args:
        chosen: `"specialist"` or `"expert"`.
        lead: Mean over images of judges' weighted votes for the specialist minus those for the expert.
        standard_error: Of the lead.
        changed: Share of images that the two classify differently.
        images: How many images were judged.
        reason: In words.
    """

    chosen: str
    lead: float
    standard_error: float
    changed: float
    images: int
    reason: str

    def to_dict(self) -> dict:
        return asdict(self)


def decide(specialist: Source, expert: Source, others: dict[str, Source], others_weight: float) -> Decision:
    """Choose the specialist only where fresh evidence shows it better.

    The judges are the expert itself on views that no target was made from, and the other models (meta-model, base),
    each weighted by its agreement with the expert. On the images where specialist and expert differ, the judges vote
    for one or the other. The expert's views share the expert's errors, so the vote leans to the expert: a specialist
    has to win against the home side.

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
    better = lead > THRESHOLD * error
    reason = (
        f"judges prefer the specialist by {100 * lead:.2f} +- {100 * error:.2f} points"
        if better
        else f"no improvement shown: the judges' lead is {100 * lead:.2f} +- {100 * error:.2f} points"
    )
    return Decision("specialist" if better else "expert", lead, error, changed, len(votes), reason)
