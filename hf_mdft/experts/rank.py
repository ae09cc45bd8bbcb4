"""A task's experts in the order in which one would take them, with the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..core.tables import text_table
from ..objectives import image_information
from ..pool import ModelPool
from ..tasks import Images
from .ensemble import combined
from .observation import Source
from .of_task import TaskExperts
from .weights import weigh


SHRINKAGE = 0.01
"""Share of the identity in the covariance of embeddings."""


@dataclass(frozen=True)
class Ranked:
    """Label-free evidence for one expert.

    Args:
        expert: Its name.
        model: Its id.
        trust: Its weight beside the others, 0 to 1 (`weigh`): what they are ordered by.
        agreement: Share of images on which it predicts what all experts together predict (EnsV, Hu et al.
            2024, "Towards Reliable Model Selection for Unsupervised Domain Adaptation").
        consistency: Share of predictions that small translations leave as they are.
        nuclear_norm: Nuclear norm of its predictions, of its largest value: confident and dispersed over classes
            (https://huggingface.co/papers/2302.01094).
        information: Mutual information of image and prediction, of its largest value, ln C.
        transferability: How well its embedding separates the classes that all experts together predict, 0 to 1
            (H-score with shrinkage, https://arxiv.org/abs/2110.06893).
        cosine: Mean cosine of its task vector with the others'.
    """

    expert: str
    model: str
    trust: float
    agreement: float
    consistency: float
    nuclear_norm: float
    information: float
    transferability: float
    cosine: float


SCORES = ("trust", "agreement", "consistency", "nuclear_norm", "information", "transferability", "cosine")


def rank(experts: TaskExperts, images: Images, *, title: str | None = None) -> list[Ranked]:
    """A task's experts, the most trusted first, those left out by their agreement; costs five forward passes of each
    over the images.

    Args:
        experts: The experts, two or more.
        images: Unlabelled images; a few hundred are enough.
        title: Begins the titles of progress bars; the default shows none.
    """
    seen = experts.observe(images, title=title)
    weights, cosines = weigh(seen), _mean_cosines(experts.pool, list(seen))
    together = combined(seen, weights).log_probs.argmax(dim=-1)
    found = [
        Ranked(
            expert=name,
            model=str(experts.pool.experts[name]),
            trust=weights[name],
            agreement=(source.log_probs.argmax(dim=-1) == together).double().mean().item(),
            consistency=source.consistency,
            cosine=cosines[name],
            transferability=h_score(source.features, together),
            **_dispersed(source),
        )
        for name, source in seen.items()
    ]
    return sorted(found, key=lambda ranked: (-ranked.trust, -ranked.agreement))


def _dispersed(source: Source) -> dict[str, float]:
    probabilities = source.log_probs.exp().double()
    count, classes = probabilities.shape
    norm = torch.linalg.matrix_norm(probabilities, "nuc").item() / (count * min(count, classes)) ** 0.5
    information = image_information(probabilities).mean().item() / torch.tensor(float(classes)).log().item()
    return {"nuclear_norm": norm, "information": information}


def h_score(features: torch.Tensor, classes: torch.Tensor) -> float:
    """`tr(cov(f)^-1 cov(E[f | class]))` over its largest value, the number of classes less one (Bao et al. 2019,
    https://arxiv.org/abs/2110.06893 for the shrinkage).

    Args:
        features: Embeddings `(N, width)`.
        classes: Class of every image, `(N,)`.
    """
    features = features.double() - features.double().mean(dim=0)
    covariance = features.T @ features / len(features)
    identity = torch.eye(len(covariance), dtype=covariance.dtype)
    covariance = torch.lerp(covariance, covariance.diagonal().mean().clamp(min=1e-12) * identity, SHRINKAGE)
    present, index = classes.unique(return_inverse=True)
    if len(present) < 2:
        return 0.0
    members = torch.nn.functional.one_hot(index).double()
    means = (members.T @ features / members.sum(dim=0).unsqueeze(-1))[index]
    between = means.T @ means / len(features)
    return (torch.linalg.solve(covariance, between).trace() / (len(present) - 1)).clamp(0, 1).item()


def _mean_cosines(pool: ModelPool, names: list[str]) -> Mapping[str, float]:
    """Mean cosine of each expert's task vector with the others', one tensor of all at a time in memory."""
    gram = torch.zeros(len(names), len(names), dtype=torch.double)
    for key, base in pool.weights(None).parameters():
        vectors = torch.stack([pool.weights(name).tensor(key) - base for name in names]).flatten(1).double()
        gram += vectors @ vectors.T
    norms = gram.diagonal().clamp(min=1e-24).sqrt()
    cosines = gram / norms[:, None] / norms[None]
    return dict(zip(names, ((cosines.sum(dim=1) - 1) / (len(names) - 1)).tolist(), strict=True))


def as_text(ranked: list[Ranked]) -> str:
    """A table for people."""
    header = [
        "expert",
        "model",
        "trust",
        "agreement",
        "consistent",
        "nuclear norm",
        "information",
        "transfer",
        "cosine",
    ]
    rows = [
        [r.expert, r.model, f"{r.trust:.0%}", *(f"{getattr(r, score):.3f}" for score in SCORES[1:])] for r in ranked
    ]
    return text_table(header, rows, left=2)
