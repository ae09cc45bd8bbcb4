"""Experts of other tasks that know some classes of this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..core.class_names import are_placeholders, shared_classes
from ..embedding import expert_features
from ..embedding.views import FEW_VIEWS, Offset
from ..heads import Head
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

SCREENED, MARGIN = 1000, 0.9
"""Images of shared classes on which a related expert is looked at first, as they are, and with how much less agreement
it may go on."""

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

    def observe(
        self,
        pool: ModelPool,
        images: Images,
        *,
        views: tuple[Offset, ...] = FEW_VIEWS,
        device: torch.device | str,
        desc: str | None,
        averaged: bool = True,
    ) -> Source:
        """Its outputs on another task's images; classes are the shared ones alone."""
        features = expert_features(pool, self.expert, images, views=views, device=device, desc=desc)
        return observe(features, _Columns(self.head, self.columns), averaged=averaged)

    def agreement(self, seen: Source, classes: torch.Tensor) -> float:
        """Share of the images of shared classes on which it predicts the same; 0 where there are too few.

        Args:
            seen: Its outputs.
            classes: Classes `(N,)` that the task's own models predict.
        """
        own = torch.tensor(self.classes)
        rows = torch.isin(classes, own)
        if rows.sum() < LEAST_IMAGES:
            return 0.0
        return (own[seen.log_probs.argmax(dim=-1)] == classes)[rows].double().mean().item()


class _Columns:
    """A head's logits of some classes."""

    def __init__(self, head: Head, columns: tuple[int, ...]) -> None:
        self.head, self.columns = head, list(columns)

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        return self.head.cpu()(features)[:, self.columns]


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
    if are_placeholders(class_names):
        return found  # LABEL_0 of one task is none of another's
    for other, heads in others.items():
        if other == task:
            continue
        for expert, head in heads.items():
            shared = shared_classes(class_names, head.class_names)
            if len(shared) >= LEAST_CLASSES:
                classes, columns = zip(*shared, strict=True)
                found.append(RelatedExpert(expert, head, classes, columns))
    return found


def related_shares(
    sources: Mapping[str, Source],
    weights: Mapping[str, float],
    together: Source,
    related: Mapping[RelatedExpert, Source],
) -> dict[str, float]:
    """Share, of all, of every related expert that is trusted, by name: as far as its agreement with the task's own
    models supports it, on those images that they take for one of the shared classes.

    Args:
        sources: Outputs of the task's own models.
        weights: How far each is trusted.
        together: Their ensemble.
        related: Outputs of related experts, of the shared classes.
    """
    odds, predicted = {}, together.log_probs.argmax(dim=-1)
    for expert, seen in related.items():
        if expert.agreement(seen, predicted) < LEAST_AGREEMENT * together.consistency:
            continue
        classes = list(expert.classes)
        rows = torch.isin(predicted, torch.tensor(classes))
        own = {name: _among(source, classes, rows) for name, source in sources.items() if weights[name] > 0}
        share = weigh({**own, expert.name: seen.on(rows)})[expert.name]
        if share > 0:
            odds[expert.name] = share / max(1 - share, share)  # no more than all of the task's own models
    # Each was weighed beside the task's own models alone; together they stand beside them.
    return {name: share / (1 + sum(odds.values())) for name, share in odds.items()}


def worth_asking(
    related: Sequence[RelatedExpert], pool: ModelPool, images: Images, together: Source, device: torch.device | str
) -> list[RelatedExpert]:
    """Those related experts that a look at some of the images does not rule out: most agree far too little, and cost
    one forward pass of a thousand images."""
    classes, least = together.log_probs.argmax(dim=-1), MARGIN * LEAST_AGREEMENT * together.consistency
    found = []
    for expert in related:
        shared = torch.isin(classes, torch.tensor(expert.classes)).nonzero().squeeze(-1)
        if len(shared) < LEAST_IMAGES:
            continue
        rows = shared[torch.linspace(0, len(shared) - 1, min(SCREENED, len(shared))).round().long()]
        few, predicted = images.subset(rows.tolist()), classes[rows]
        seen = expert.observe(pool, few, views=FEW_VIEWS[:1], device=device, desc=None)
        if expert.agreement(seen, predicted) >= least:
            found.append(expert)
    return found


def _among(source: Source, classes: list[int], rows: torch.Tensor) -> Source:
    found = source.on(rows)
    log_probs = found.log_probs[:, classes].log_softmax(dim=-1)
    return replace(found, logits=found.logits[:, classes], log_probs=log_probs)


def completed(seen: Source, classes: Sequence[int], together: Source) -> Source:
    """A related expert's outputs as those of all classes of the task: it divides the probability that the task's own
    models give to the shared classes among them; that of all of these together, and of the others, is theirs.

    Args:
        seen: Its outputs, of the shared classes.
        classes: Index of the shared classes among the task's.
        together: The ensemble of the task's own models.
    """
    classes = list(classes)

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
        agreeing=seen.agreeing,
        of_pool=False,
    )
