"""Several models of one task as one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional as F

from .observation import Source


def _classes(sources: Mapping[str, Source]) -> int:
    return next(iter(sources.values())).logits.shape[-1]


def combined(sources: Mapping[str, Source], weights: Mapping[str, float]) -> Source:
    """Geometric mean of several models' probabilities; on each image, a model's share rises with its confidence there.

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
    largest = max(kept, key=lambda name: (kept[name].of_pool, weights[name]))
    seen = {name: source for name, source in kept.items() if len(source.held_out)} or kept
    return Source(
        logits=geometric_mean([source.logits.log_softmax(dim=-1) for source in kept.values()], shares),
        log_probs=geometric_mean([source.log_probs for source in kept.values()], shares),
        features=kept[largest].features,
        held_out=_vote([s.held_out for s in seen.values()], [weights[name] for name in seen], _classes(kept)),
        consistency=sum(w * source.consistency for w, source in zip(shares, kept.values(), strict=True)) / sum(shares),
        joint_features=joint_features([source.features for source in kept.values()]),
        of_pool=kept[largest].of_pool,
    )


def geometric_mean(log_probs: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
    """Log-probabilities `(N, C)` of several models' weighted mean, in which each counts on an image as far as it is
    confident there."""
    total = sum(w * lp.exp().amax(dim=-1, keepdim=True) * lp for w, lp in zip(weights, log_probs, strict=True))
    share = sum(w * lp.exp().amax(dim=-1, keepdim=True) for w, lp in zip(weights, log_probs, strict=True))
    return (total / share).log_softmax(dim=-1)


def _vote(classes: list[torch.Tensor], weights: list[float], num_classes: int) -> torch.Tensor:
    """Class with the most weight, `(V, N)`, of several models' classes."""
    votes = []
    for view in range(len(classes[0])):
        total = torch.zeros(classes[0].shape[1], num_classes)
        for weight, found in zip(weights, classes, strict=True):
            total.scatter_add_(1, found[view].unsqueeze(-1), torch.full((len(total), 1), weight))
        votes.append(total.argmax(dim=-1))
    return torch.stack(votes) if votes else classes[0]


def joint_features(features: list[torch.Tensor]) -> torch.Tensor:
    """Embeddings of several models, `(N, width)` each, side by side: each of length 1 around its mean, so that none
    counts more because its numbers are larger (and a model with the same output for every image does not count)."""
    units = [F.normalize(f, dim=-1) for f in features]
    spread = [F.normalize(unit - unit.mean(dim=0), dim=-1, eps=1e-4) for unit in units]
    return F.normalize(torch.cat(spread, dim=-1), dim=-1)
