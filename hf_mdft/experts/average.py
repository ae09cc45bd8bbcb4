"""Weights between several experts of one task."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from ..embedding import embed_images
from ..embedding.statistics import estimate_statistics
from ..heads import Head, mean_head
from ..tasks import Images
from .ensemble import combined
from .of_task import TaskExperts
from .weights import weigh


Way = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Combines task vectors `(K, *shape)` of one tensor, with weights `(K,)` that sum to 1."""


def average(vectors: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean (model soups, https://huggingface.co/papers/2203.05482)."""
    return torch.einsum("k,k...->...", weights, vectors)


def model_stock(vectors: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The mean, shortened towards the base as far as the K task vectors differ in direction: by
    `K cos / (1 + (K - 1) cos)` with their mean cosine (Model Stock, https://huggingface.co/papers/2403.19522)."""
    count = len(vectors)
    units = F.normalize(vectors.flatten(1), dim=-1)
    cosine = ((units @ units.T).sum() - units.square().sum()) / (count * (count - 1))
    cosine = cosine.clamp(0, 1)
    return count * cosine / (1 + (count - 1) * cosine) * average(vectors, weights)


WAYS: dict[str, Way] = {"average of the experts": average, "Model Stock of the experts": model_stock}
"""Ways of combining experts, by name."""


@torch.no_grad()
def average_model(
    experts: TaskExperts, images: Images, weights: Mapping[str, float] | None = None, way: Way = average
) -> tuple[nn.Module, Head]:
    """A tower between a task's experts, with the mean of their heads.

    Args:
        experts: The experts.
        images: Unlabelled images, from which running statistics are estimated where the tower has any.
        weights: Weight of each, by name; those with 0 are left out. The default is the same for all.
        way: How task vectors are combined.
    """
    kept = {name: share for name, share in (weights or dict.fromkeys(experts.heads, 1.0)).items() if share}
    shares = torch.tensor(list(kept.values())) / sum(kept.values())
    tower = experts.pool.tower()
    sources = [experts.pool.weights(name) for name in kept]
    for name, parameter in tower.named_parameters():
        vectors = torch.stack([source.tensor(name) for source in sources]) - parameter
        parameter += way(vectors, shares)
    tower = estimate_statistics(tower.to(experts.device), [images]).cpu()
    return tower, mean_head([experts.heads[name] for name in kept])


def greedy_average(experts: TaskExperts, images: Images, *, title: str | None = None) -> tuple[nn.Module, Head]:
    """The average of those experts that raise its agreement with the ensemble: the most trusted first, each kept where
    agreement does not fall (greedy soup, https://huggingface.co/papers/2203.05482, by a label-free score).

    Args:
        experts: The experts, two or more.
        images: Unlabelled images.
        title: Begins the titles of progress bars; the default shows none.
    """
    seen = experts.observe(images, title=title)
    weights = weigh(seen)
    wanted = combined(seen, weights).log_probs.argmax(dim=-1)
    kept, most, best = {}, -1.0, None
    for name in sorted(weights, key=lambda name: -weights[name]):
        tower, head = average_model(experts, images, {**kept, name: 1.0})
        desc = title and f"{title}, average with {name}"
        features = embed_images(tower.to(experts.device), experts.pool.architecture, images, desc=desc)
        agreement = (head(features).argmax(dim=-1) == wanted).double().mean().item()
        if agreement >= most:
            kept, most, best = {**kept, name: 1.0}, agreement, (tower.cpu(), head)
    return best
