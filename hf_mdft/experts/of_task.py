"""The experts of one task and what else teaches it: run, weighed, and the one that one would take."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from ..embedding import expert_features
from ..embedding.views import FEW_VIEWS, HELD_OUT_VIEWS, Offset
from ..heads import Head
from ..pool import ModelPool
from ..tasks import Images
from ..teachers import OutsideTeacher
from .ensemble import combined, joint_features, vote
from .observation import Source, observe_in_stages, observe_outside
from .related import RelatedExpert, completed, related_shares, worth_asking
from .weights import weigh


@dataclass(frozen=True)
class TaskExperts:
    """A task's experts with their heads.

    Args:
        task: Name of the task.
        pool: Base and experts.
        heads: Head of each of the task's experts, by the expert's name.
        device: Device that they are run on.
        teachers: Teachers from outside the pool.
        related: Experts of other tasks that know some of its classes.
        strangers: Heads of other tasks' experts, by the expert's name: whether they know its images better is asked.
    """

    task: str
    pool: ModelPool
    heads: Mapping[str, Head]
    device: torch.device | str = "cpu"
    teachers: tuple[OutsideTeacher, ...] = ()
    related: tuple[RelatedExpert, ...] = ()
    strangers: Mapping[str, Head] = field(default_factory=dict)

    def key(self) -> list[Any]:
        """Changes with what they predict, beyond pool and head of the task; empty for an expert alone."""
        own = [head.key() for head in self.heads.values()] if len(self.heads) > 1 else []
        return (
            own
            + [teacher.key() for teacher in self.teachers]
            + [[other.expert, other.head.key(), other.classes] for other in self.related]
        )

    def observe(
        self,
        images: Images,
        views: tuple[Offset, ...] = FEW_VIEWS,
        *,
        only: Collection[str] | None = None,
        title: str | None = None,
        **options: Any,
    ) -> dict[str, Source]:
        """Outputs of the experts, by name.

        Args:
            images: Unlabelled images.
            views: Views that they are run under.
            only: Names of those that are run; the default is all.
            title: Begins the titles of progress bars; the default shows none.
            options: Those of `observe`.
        """
        found = {}
        for expert, head in self.heads.items():
            if only is not None and expert not in only:
                continue
            run = partial(self._embed, expert, images, title)
            found[expert] = observe_in_stages(run, head.cpu(), views, **options)
        return found

    def _embed(
        self,
        expert: str,
        images: Images,
        title: str | None,
        rows: torch.Tensor | None = None,
        views: tuple[Offset, ...] = FEW_VIEWS,
    ) -> Iterator[torch.Tensor]:
        """Embeddings by an expert, view by view, of the images at some rows, or of all."""
        desc = title and f"{title}, {'expert' if len(self.heads) == 1 else f'expert {expert}'}"
        chosen = images if rows is None else images.subset(rows.tolist())
        return expert_features(self.pool, expert, chosen, views=views, device=self.device, desc=desc)

    def held_out(self, images: Images, weights: Mapping[str, float], *, title: str | None = None) -> torch.Tensor:
        """Class under each of `HELD_OUT_VIEWS`, `(V, N)`, that the experts predict, each as far as it is trusted; the
        chosen one's, where none is.

        Args:
            images: Unlabelled images, as experts see them.
            weights: How far each is trusted, by name; others than experts are passed over.
            title: Begins the titles of progress bars; the default shows none.
        """
        trusted = [name for name in self.heads if weights[name] > 0] or [self.chosen(images, title=title)]
        classes = []
        for name in trusted:
            head, views = self.heads[name].cpu(), self._embed(name, images, title, views=HELD_OUT_VIEWS)
            classes.append(torch.stack([head(features).argmax(dim=-1) for features in views]))
        return vote(classes, [weights[name] or 1.0 for name in trusted], self.heads[trusted[0]].num_classes)

    def ensemble(
        self,
        images: Images,
        views: tuple[Offset, ...] = FEW_VIEWS,
        *,
        as_they_are: Images | None = None,
        title: str | None = None,
        **options: Any,
    ) -> Source | None:
        """All experts, teachers and related experts as one model, each as far as it is trusted; `None` where there is
        neither expert nor teacher. Experts that are not trusted at all are run under `FEW_VIEWS` alone.

        Args:
            images: Unlabelled images, as experts see them.
            views: Views that experts are run under.
            as_they_are: The images as teachers see them; the default is `images`.
            title: Begins the titles of progress bars; the default shows none.
            options: Those of `observe`.
        """
        if not self.heads and not self.teachers:
            return None
        found = self._evidence(images, as_they_are or images, title, options.get("averaged", True))
        best = max(self.heads, key=found.own_weights.__getitem__) if self.heads else None
        seen = self.observe(images, views, only={*found.trusted, best}, title=title, **options)
        together = combined(seen | found.teachers, found.own_weights)
        if best and not together.of_pool:  # teachers alone: the embedding is still an expert's
            own = seen[best]
            joint = joint_features([own.features, together.features])
            together = replace(together, features=own.features, joint_features=joint, of_pool=True)
        seen |= found.teachers
        if not found.related:
            return together
        seen |= {expert.name: completed(own, expert.classes, together) for expert, own in found.related.items()}
        return combined(seen, found.weights)

    def weights(
        self, images: Images, *, as_they_are: Images | None = None, title: str | None = None
    ) -> dict[str, float]:
        """How far each expert, teacher and related expert is trusted, by name, in shares of all: `weigh`, by their
        outputs under `FEW_VIEWS`.

        Args:
            images: Unlabelled images, as experts see them.
            as_they_are: The images as teachers see them; the default is `images`.
            title: Begins the titles of progress bars; the default shows none.
        """
        if not self.heads and not self.teachers:
            return {}
        return self._evidence(images, as_they_are or images, title).weights

    def _evidence(self, images: Images, as_they_are: Images, title: str | None, averaged: bool = True) -> _Evidence:
        if len(self.heads) == 1 and not self.teachers and not self.related:
            return _Evidence(dict.fromkeys(self.heads, 1.0))
        seen, teachers = self.observe(images, title=title), {}
        for teacher in self.teachers:
            desc = title and f"{title}, teacher {teacher.name}"
            found = teacher.log_probs(as_they_are, FEW_VIEWS, device=self.device, desc=desc)
            teachers[f"teacher {teacher.name}"] = observe_outside(found, averaged=averaged)
        seen |= teachers
        own = weigh(seen)
        if not self.related or not self.heads:
            return _Evidence(own, teachers)
        together, others = combined(seen, own), {}
        for expert in worth_asking(self.related, self.pool, images, together, self.device):
            desc = title and f"{title}, expert {expert.expert}"
            options = {"device": self.device, "desc": desc, "averaged": averaged}
            others[expert] = expert.observe(self.pool, images, **options)
        shares = related_shares(seen, own, together, others)
        return _Evidence(own, teachers, {e: source for e, source in others.items() if e.name in shares}, shares)

    def chosen(self, images: Images, *, title: str | None = None) -> str:
        """Name of the expert that one would take without labels: the one that is trusted most (`weigh`).

        Args:
            images: Unlabelled images.
            title: Begins the titles of progress bars; the default shows none.
        """
        if len(self.heads) == 1:
            return next(iter(self.heads))
        weights = weigh(self.observe(images, title=title))
        return max(weights, key=weights.__getitem__)


@dataclass(frozen=True)
class _Evidence:
    """How far models are trusted, and the outputs of those that are no experts of the task.

    Args:
        own_weights: Weight of every expert and teacher, by name, without related experts.
        teachers: Outputs of teachers, by name.
        related: Outputs of the related experts that are trusted.
        shares: Share of each of these, by name, of all.
    """

    own_weights: dict[str, float]
    teachers: dict[str, Source] = field(default_factory=dict)
    related: dict[RelatedExpert, Source] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)

    @property
    def trusted(self) -> list[str]:
        """Names of experts and teachers with some weight."""
        return [name for name, weight in self.own_weights.items() if weight]

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every model, by name, in shares of all."""
        rest = 1 - sum(self.shares.values())
        return {**{name: rest * weight for name, weight in self.own_weights.items()}, **self.shares}
