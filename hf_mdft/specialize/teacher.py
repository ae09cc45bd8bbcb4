"""The teacher: models and views combined, corrected by the class prior over all unlabelled images."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..embedding.views import FEW_VIEWS
from ..heads import Head
from ..objectives import estimate_prior, mean_log_probs
from .lda import certainty, joint_features, refine


@dataclass
class Source:
    """What one model says of a task's images.

    Args:
        logits: On the images as they are, `(N, C)`.
        log_probs: Mean log-probabilities over views, `(N, C)`.
        features: Mean embedding over the same views, `(N, width)`.
        judged: Predicted class under each of the judge's views, `(V, N)`.
        stability: Share of predictions that a small translation leaves as they are.
    """

    logits: torch.Tensor
    log_probs: torch.Tensor
    features: torch.Tensor
    judged: torch.Tensor
    consistency: float = 1.0

    @property
    def predictions(self) -> torch.Tensor:
        return self.logits.argmax(dim=-1)


def observe(features: torch.Tensor, head: Head, held_out_views: int = 0, averaged: bool = True) -> Source:
    """What a model says whose embeddings under V views, first of them the images as they are, are `(V, N, width)`.

    Args:
        held_out_views: How many of the views, the last ones, only the judge sees.
        averaged: Off: it speaks on the images as they are, and its other views show its stability only.
    """
    seen = len(features) - held_out_views
    logits = head(features[:seen])
    predictions = logits[: len(FEW_VIEWS)].argmax(dim=-1)
    return Source(
        logits[0],
        mean_log_probs(logits if averaged else logits[:1]),
        features[: seen if averaged else 1].mean(dim=0),
        head(features[seen:]).argmax(dim=-1),
        (predictions[1:] == predictions[0]).float().mean().item() if seen > 1 else 1.0,
    )


def agreement(a: Source, b: Source) -> float:
    """Share of images on which two models, each averaged over its views, say the same class."""
    return (a.log_probs.argmax(dim=-1) == b.log_probs.argmax(dim=-1)).float().mean().item()


STABLER = 0.1
"""How much stabler than the first, relatively, a model must be to count fully beside it."""


def reliability(source: Source, first: Source, ensemble_weight: float) -> float:
    """Weight of a model beside the first, from two pieces of label-free evidence: how much stabler its predictions are
    under small translations, and how often it agrees with the first (a model that says one class everywhere is stable
    too)."""
    lead = (source.consistency / max(first.consistency, 1e-8) - 1) / STABLER
    return ensemble_weight * agreement(source, first) * min(1.0, max(0.0, lead))


@dataclass
class Teacher:
    """Soft targets for every image.

    Args:
        probabilities: `(N, C)`.
        weights: In [0, 1], `(N,)`: how much an image counts.
        features: Embedding to stay aligned with, `(N, width)`.
        source_weights: Of each model in the combination.
    """

    probabilities: torch.Tensor
    weights: torch.Tensor
    features: torch.Tensor
    source_weights: dict[str, float]


def build_teacher(
    sources: dict[str, Source],
    ensemble_weight: float,
    prior_strength: float = 0.5,
    lda_weight: float = 0.0,
    student: Source | None = None,
) -> Teacher:
    """Combine models per image: a geometric mean of their probabilities, each model's share rising with its
    reliability and every image's with its confidence.

    Args:
        sources: By name; the first is the reference: the task's expert, or the meta-model for a task without one.
        ensemble_weight: Share of the others before the evidence for them.
        prior_strength: Exponent of the correction by the class prior.
        lda_weight: Of a discriminant fitted to the targets in all models' embeddings.
        student: The student itself, so far; counts like the first.
    """
    first = next(iter(sources.values()))
    shares, total, weight_sum = {}, 0.0, 0.0
    heard = {**sources, **({"student": student} if student else {})}
    for name, source in heard.items():
        equal = source is first or source is student
        shares[name] = 1.0 if equal else reliability(source, first, ensemble_weight)
        confidence = source.log_probs.exp().amax(dim=-1, keepdim=True)
        total = total + shares[name] * confidence * source.log_probs
        weight_sum = weight_sum + shares[name] * confidence
    probabilities = (total / weight_sum).softmax(dim=-1)
    mean = probabilities.mean(dim=0)
    corrected = probabilities * (estimate_prior(probabilities) / mean.clamp(min=1e-8)) ** prior_strength
    corrected = corrected / corrected.sum(dim=-1, keepdim=True)
    if lda_weight:
        speakers = heard.values() if ensemble_weight else [s for s in heard.values() if s is first or s is student]
        corrected = refine(corrected, joint_features([s.features for s in speakers]), lda_weight)
    return Teacher(corrected, certainty(corrected), first.features, shares)
