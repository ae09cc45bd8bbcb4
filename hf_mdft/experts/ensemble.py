"""Several models of one task as one."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch.nn import functional as F

from .observation import Source, no_views


COOLEST, HOTTEST = 0.1, 10.0
"""Bounds of a model's temperature."""

SURE = 0.98
"""Consistency above which a model counts as no more consistent."""

FITTED, HALVINGS = 4096, 24
"""Images on which a temperature is fitted, and bisections."""


def combined(sources: Mapping[str, Source], weights: Mapping[str, float]) -> Source:
    """Geometric mean of several models' probabilities; on each image, a model's share rises with its confidence there.

    Confidence is comparable between models only where it means the same, and fine-tuning on few images makes a model
    surer than it should be. So each has a temperature (Guo et al., 2017) at which its mean confidence is its
    consistency under small translations; without labels, and relative to the others', so that the ensemble is as sure
    as its members are on average. (Two experts and one of another task on CIFAR-10, nine views, before training: 47.5
    without, 48.7 with.)

    Args:
        sources: Outputs of the models on the same images.
        weights: Weight of each; one with 0 is left out.

    Returns:
        Their outputs as one model's; its embedding is that of the pool's model with the largest weight, and
        `joint_features` those of all.
    """
    kept = {name: source for name, source in sources.items() if weights[name] > 0}
    if len(kept) == 1:
        return next(iter(kept.values()))
    shares = [weights[name] for name in kept]
    heat = list(zip(kept.values(), _temperatures(list(kept.values()), shares), strict=True))
    largest = max(kept, key=lambda name: (kept[name].of_pool, weights[name]))
    agreeing = [source.agreeing for source in kept.values()]
    known = all(part is not None for part in agreeing)
    return Source(
        logits=geometric_mean([source.logits / t for source, t in heat], shares),
        log_probs=geometric_mean([source.log_probs / t for source, t in heat], shares),
        features=kept[largest].features,
        held_out=no_views(kept[largest].logits),
        consistency=sum(w * source.consistency for w, source in zip(shares, kept.values(), strict=True)) / sum(shares),
        agreeing=sum(w * part for w, part in zip(shares, agreeing, strict=True)) / sum(shares) if known else None,
        joint_features=joint_features([source.features for source in kept.values()]),
        of_pool=kept[largest].of_pool,
    )


def _temperatures(sources: list[Source], shares: list[float]) -> list[float]:
    """Temperature of each model; their weighted geometric mean is 1."""
    found = [temperature(source.log_probs, source.consistency) for source in sources]
    mean = sum(share * math.log(t) for share, t in zip(shares, found, strict=True)) / sum(shares)
    return [t / math.exp(mean) for t in found]


def temperature(log_probs: torch.Tensor, confidence: float) -> float:
    """Temperature at which predictions `(N, C)` have a mean confidence, as near to it as `COOLEST` to `HOTTEST` come.

    Args:
        log_probs: Log-probabilities.
        confidence: The wanted mean of the largest probability of every image.
    """
    few = log_probs[:: -(-len(log_probs) // FITTED)].float()
    low, high = COOLEST, HOTTEST
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        if (few / middle).softmax(dim=-1).amax(dim=-1).mean().item() > min(confidence, SURE):
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)


def geometric_mean(logits: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
    """Log-probabilities `(N, C)` of several models' weighted mean, in which each counts on an image as far as it is
    confident there."""
    log_probs = [found.log_softmax(dim=-1) for found in logits]
    total = sum(w * lp.exp().amax(dim=-1, keepdim=True) * lp for w, lp in zip(weights, log_probs, strict=True))
    share = sum(w * lp.exp().amax(dim=-1, keepdim=True) for w, lp in zip(weights, log_probs, strict=True))
    return (total / share).log_softmax(dim=-1)


def vote(classes: list[torch.Tensor], weights: list[float], num_classes: int) -> torch.Tensor:
    """Class with the most weight, `(V, N)`, of several models' classes."""
    total = torch.zeros(*classes[0].shape, num_classes)
    for weight, found in zip(weights, classes, strict=True):
        total.scatter_add_(2, found.unsqueeze(-1), torch.full((*found.shape, 1), weight))
    return total.argmax(dim=-1)


def joint_features(features: list[torch.Tensor]) -> torch.Tensor:
    """Embeddings of several models, `(N, width)` each, side by side: each of length 1 around its mean, so that none
    counts more because its numbers are larger (and a model with the same output for every image does not count)."""
    units = [F.normalize(f, dim=-1) for f in features]
    spread = [F.normalize(unit - unit.mean(dim=0), dim=-1, eps=1e-4) for unit in units]
    return F.normalize(torch.cat(spread, dim=-1), dim=-1)
