"""How far each of several models is trusted on a task, from their outputs alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..objectives import image_information
from .observation import Source


SHARPNESS, NOISE, FOR_IMAGES = 8.0, 0.2, 1000
"""How fast a model's weight falls with the distance of its log-odds from the largest; the distance below which it
falls slower, since experts alike differ by 0.1 to 0.3 by chance; and images below which chance differences are
larger, with the root of their number. (Accuracy of ensembles over nine views before training, average of four tasks:
three experts with 256 labels each have 66.7, evenly weighted 67.1; two of those beside one with 4,000 labels, 75.2
alone, leave 74.9 of it, evenly weighted 71.4.)"""

LEAST = 0.02
"""Bound from 0 and 1 of the shares that odds are computed of."""

NEGLIGIBLE = 0.02
"""Weight, of the largest, below which a model is left out."""

ITERATIONS = 8
"""Iterations: agreement is with the others as they are weighed, and weighs them."""

ALIKE = 0.02
"""Mean total variation distance of two models' predictions below which they are one model with two names."""

INFORMATIVE = 0.5
"""Mutual information, of the other's, below which one of only two models is left out: between two, agreement does not
tell which one was trained on wrong labels, but such a model is unsure of everything."""


@torch.no_grad()
def weigh(sources: Mapping[str, Source]) -> dict[str, float]:
    """Weight of each of several models, by name, in shares of all; 0 for those that are left out.

    Two kinds of label-free evidence, in odds: the share of predictions that small translations leave as they are, and
    the share of images on which a model predicts what the others do, weighed likewise and without the model itself.
    Models with the same outputs share one vote.

    Args:
        sources: Outputs of the models on the same images.
    """
    if len(sources) == 1:
        return dict.fromkeys(sources, 1.0)
    log_probs = torch.stack([source.log_probs for source in sources.values()]).float()
    consistent = _odds(torch.tensor([source.consistency for source in sources.values()], dtype=torch.double))
    groups = _groups(log_probs)
    confident = log_probs.exp().amax(dim=-1, keepdim=True) * log_probs
    classes, alone = log_probs.argmax(dim=-1), int(groups.max()) + 1
    share = torch.ones(len(sources), dtype=torch.double)
    noise = NOISE * max(1.0, (FOR_IMAGES / log_probs.shape[1]) ** 0.5)
    for _ in range(ITERATIONS if alone > 2 else 1):
        votes = share / torch.bincount(groups, share)[groups] * _of_group(share, groups)
        agreeing = torch.ones_like(share)
        if alone > 2:
            for model in range(len(sources)):
                others = (votes * (groups != groups[model])).float()
                together = torch.einsum("k,knc->nc", others, confident)
                agreeing[model] = (together.argmax(dim=-1) == classes[model]).double().mean()
            agreeing = _odds(agreeing)
        behind = ((consistent * agreeing).max() / (consistent * agreeing)).log()
        share = (-SHARPNESS * behind**2 / (behind + noise)).exp()
        share = share / share.sum()
    share = share / torch.bincount(groups)[groups]  # one vote for all with the same outputs
    if alone == 2:
        information = torch.stack([image_information(found.exp()).mean() for found in log_probs])
        share[information < INFORMATIVE * information.max()] = 0.0
    share[share < NEGLIGIBLE * share.max()] = 0.0
    return dict(zip(sources, (share / share.sum()).tolist(), strict=True))


def _odds(share: torch.Tensor) -> torch.Tensor:
    share = share.clamp(LEAST, 1 - LEAST)
    return share / (1 - share)


def _of_group(share: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Mean share of each model's group."""
    return (torch.bincount(groups, share) / torch.bincount(groups))[groups]


def _groups(log_probs: torch.Tensor) -> torch.Tensor:
    """Number of each model's group, `(K,)`: those with the same outputs are one, and those alike to one of them."""
    alike, probabilities = torch.eye(len(log_probs)), log_probs.exp()
    for model in range(len(log_probs)):
        for other in range(model):
            distance = (probabilities[model] - probabilities[other]).abs().sum(dim=-1).mean() / 2
            alike[model, other] = alike[other, model] = distance < ALIKE
    for _ in range(len(log_probs).bit_length()):  # paths of twice the length each time
        alike = (alike @ alike > 0).float()
    return alike.argmax(dim=-1).unique(return_inverse=True)[1]
