"""Experts of other tasks that know some classes of this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from ..embedding import expert_features
from ..embedding.views import FEW_VIEWS
from ..heads import Head, plain_name
from ..pool import ModelPool
from ..tasks import Images
from .observation import Source, observe
from .weights import weigh


LEAST_CLASSES = 2
"""Classes that two tasks must share: among fewer there is nothing to tell apart."""

LEAST_AGREEMENT = 0.75
"""Agreement with the task's own models, of their consistency under small translations, below which a related expert is
not asked: it differs from them far more than they do from themselves. Digits in fonts and handwritten digits are below
it either way (with them, accuracy fell by 1 to 7 points); experts of one task are above it, but for weak ones."""

LEAST_IMAGES = 32
"""Images of shared classes below which a related expert cannot be compared with the task's own."""


@dataclass(frozen=True)
class RelatedExpert:
    """An expert of another task, for the classes that both tasks have.

    Args:
        expert: Its name.
        head: Its own head.
        classes: Index of every shared class among the task's.
        columns: Index of the same among the expert's own.
    """

    expert: str
    head: Head
    classes: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def name(self) -> str:
        """As tables and cards name it."""
        return f"related {self.expert}"

    def observe(self, pool: ModelPool, images: Images, *, device: torch.device | str, desc: str | None) -> Source:
        """Its outputs on another task's images; classes are the shared ones alone."""
        features = expert_features(pool, self.expert, images, views=FEW_VIEWS, device=device, desc=desc)
        return observe(features, _Columns(self.head, self.columns))


class _Columns:
    """A head's logits of some classes."""

    def __init__(self, head: Head, columns: tuple[int, ...]) -> None:
        self.head, self.columns = head, list(columns)

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(features)[:, self.columns]


def related_experts(
    task: str, class_names: list[str], others: Mapping[str, Mapping[str, Head]]
) -> list[RelatedExpert]:
    """Experts of other tasks with at least two classes of the same name.

    Args:
        task: Name of the task.
        class_names: Its classes.
        others: Heads of the experts of every task, by task and by the expert's name.
    """
    found = []
    for other, heads in others.items():
        if other == task:
            continue
        for expert, head in heads.items():
            own = {plain_name(name): column for column, name in enumerate(head.class_names)}
            shared = [(c, own[plain_name(name)]) for c, name in enumerate(class_names) if plain_name(name) in own]
            if len(shared) >= LEAST_CLASSES:
                classes, columns = zip(*shared, strict=True)
                found.append(RelatedExpert(expert, head, classes, columns))
    return found


def with_related(
    sources: Mapping[str, Source],
    weights: Mapping[str, float],
    together: Source,
    related: Mapping[RelatedExpert, Source],
) -> tuple[dict[str, Source], dict[str, float]]:
    """A task's models and related experts, with weights: each related expert as far as its agreement with the task's
    own models supports it, on those images that they take for one of the shared classes.

    A related expert divides the probability of the shared classes among them anew; that of all of them together, and
    that of the others, is the ensemble's.

    Args:
        sources: Outputs of the task's own models.
        weights: How far each is trusted.
        together: Their ensemble.
        related: Outputs of related experts, of the shared classes.
    """
    all_sources, shares = dict(sources), {}
    for expert, seen in related.items():
        classes = list(expert.classes)
        rows = torch.isin(together.log_probs.argmax(dim=-1), torch.tensor(classes))
        if rows.sum() < LEAST_IMAGES:
            continue
        agreeing = (_indices(expert)[seen.log_probs.argmax(dim=-1)] == together.log_probs.argmax(dim=-1))[rows]
        if agreeing.double().mean() < LEAST_AGREEMENT * together.consistency:
            continue
        own = {name: _among(source, classes, rows) for name, source in sources.items() if weights[name] > 0}
        share = weigh({**own, expert.name: _rows(seen, rows)})[expert.name]
        if share > 0:
            all_sources[expert.name], shares[expert.name] = _completed(seen, classes, together), share
    total = sum(shares.values())
    # Each share is one beside the task's own models alone; several stand beside them together.
    beside = {name: share / (1 - share) if share < 1 else 1.0 for name, share in shares.items()}
    own_part = 1 / (1 + sum(beside.values())) if total else 1.0
    found = {name: weight * own_part for name, weight in weights.items()}
    return all_sources, {**found, **{name: odds * own_part for name, odds in beside.items()}}


def _indices(expert: RelatedExpert) -> torch.Tensor:
    return torch.tensor(expert.classes)


def _among(source: Source, classes: list[int], rows: torch.Tensor) -> Source:
    log_probs = source.log_probs[rows][:, classes].log_softmax(dim=-1)
    return replace(source, logits=source.logits[rows][:, classes], log_probs=log_probs)


def _rows(source: Source, rows: torch.Tensor) -> Source:
    return replace(source, logits=source.logits[rows], log_probs=source.log_probs[rows])


def _completed(seen: Source, classes: list[int], together: Source) -> Source:
    """A related expert's outputs as those of all classes of the task."""

    def complete(own: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        found = whole.log_softmax(dim=-1).clone()
        mass = found[:, classes].logsumexp(dim=-1, keepdim=True)
        found[:, classes] = mass + own.log_softmax(dim=-1)
        return found

    return Source(
        logits=complete(seen.logits, together.logits),
        log_probs=complete(seen.log_probs, together.log_probs),
        features=seen.features,
        held_out=together.held_out[:0],
        consistency=seen.consistency,
        of_pool=False,
    )
