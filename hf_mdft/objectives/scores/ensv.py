"""Agreement with the ensemble of all candidates."""

from __future__ import annotations

import torch

from .base import SCORES, Evidence


@SCORES.register("ensv")
def ensv(evidence: Evidence) -> float:
    """Agreement with the mean prediction of all candidates (EnsV, Hu et al. 2024, "Towards Reliable Model
    Selection for Unsupervised Domain Adaptation"). Of two candidates it follows the more confident one, so that it may
    prefer a collapsed model."""
    logits = (evidence.specialist.logits, evidence.expert.logits, *evidence.candidates)
    ensemble = torch.stack([one.softmax(dim=-1) for one in logits]).mean(dim=0).argmax(dim=-1)
    return evidence.gain(lambda p: (p.argmax(dim=-1) == ensemble).float().mean().item())
