"""The experts of one task and what else teaches it: run, weighed, and the one that one would take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..embedding import expert_features
from ..embedding.views import FEW_VIEWS, Offset
from ..heads import Head
from ..pool import ModelPool
from ..tasks import Images
from ..teachers import OutsideTeacher
from .ensemble import combined
from .observation import Source, observe, observe_outside
from .related import RelatedExpert, with_related, worth_asking
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
    """

    task: str
    pool: ModelPool
    heads: Mapping[str, Head]
    device: torch.device | str = "cpu"
    teachers: tuple[OutsideTeacher, ...] = ()
    related: tuple[RelatedExpert, ...] = ()

    def key(self) -> list[Any]:
        """Changes with what they predict, beyond pool and head of the task; empty for a sole expert."""
        own = [head.key() for head in self.heads.values()] if len(self.heads) > 1 else []
        return own + [[teacher.source.reference.to_dict(), teacher.class_names] for teacher in self.teachers]

    def observe(
        self, images: Images, views: tuple[Offset, ...] = FEW_VIEWS, *, title: str | None = None, **options: Any
    ) -> dict[str, Source]:
        """Outputs of every expert, by name.

        Args:
            images: Unlabelled images.
            views: Views that they are run under.
            title: Begins the titles of progress bars; the default shows none.
            options: Those of `observe`.
        """
        found = {}
        for expert, head in self.heads.items():
            desc = title and f"{title}, {'expert' if len(self.heads) == 1 else f'expert {expert}'}"
            features = expert_features(self.pool, expert, images, views=views, device=self.device, desc=desc)
            found[expert] = observe(features, head.cpu(), **options)
        return found

    def observe_all(
        self,
        images: Images,
        views: tuple[Offset, ...] = FEW_VIEWS,
        *,
        as_they_are: Images | None = None,
        title: str | None = None,
        **options: Any,
    ) -> dict[str, Source]:
        """Outputs of every expert, and of the teachers from outside the pool, by name.

        Args:
            images: Unlabelled images, as experts see them.
            views: Views that experts are run under; teachers under `FEW_VIEWS` of them.
            as_they_are: The images as teachers see them; the default is `images`.
            title: Begins the titles of progress bars; the default shows none.
            options: Those of `observe`.
        """
        found, few = self.observe(images, views, title=title, **options), views[: len(FEW_VIEWS)]
        for teacher in self.teachers:
            desc = title and f"{title}, teacher {teacher.name}"
            seen = teacher.log_probs(as_they_are or images, few, device=self.device, desc=desc)
            found[called(teacher)] = observe_outside(seen)
        return found

    def ensemble(
        self, images: Images, views: tuple[Offset, ...] = FEW_VIEWS, *, title: str | None = None, **options: Any
    ) -> tuple[Source, dict[str, float]]:
        """All experts, teachers and related experts as one model, each as far as it is trusted (`weigh`), and how far
        that is, by name, in shares of all.

        Args:
            images: Unlabelled images, as experts see them.
            views: Views that experts are run under.
            title: Begins the titles of progress bars; the default shows none.
            options: Those of `observe_all`.
        """
        seen = self.observe_all(images, views, title=title, **options)
        weights = weigh(seen)
        together = combined(seen, weights)
        if not self.related or not self.heads:
            return together, weights
        others = {}
        for expert in worth_asking(self.related, self.pool, images, together, self.device):
            desc = title and f"{title}, expert {expert.expert}"
            others[expert] = expert.observe(self.pool, images, device=self.device, desc=desc)
        seen, weights = with_related(seen, weights, together, others)
        return combined(seen, weights), weights

    def weights(self, images: Images, as_they_are: Images | None = None) -> dict[str, float]:
        """How far each is trusted, by name, in shares of all."""
        return self.ensemble(images, as_they_are=as_they_are)[1] if self.heads or self.teachers else {}

    def chosen(self, images: Images, *, title: str | None = None) -> str:
        """Name of the expert that one would take without labels: the one that is trusted most (`weigh`).

        Args:
            images: Unlabelled images.
            title: Begins the titles of progress bars; the default shows none.
        """
        if len(self.heads) == 1:
            return next(iter(self.heads))
        return most_trusted(weigh(self.observe(images, title=title)))


def called(teacher: OutsideTeacher) -> str:
    """A teacher's name beside those of experts."""
    return f"teacher {teacher.name}"


def most_trusted(weights: Mapping[str, float]) -> str:
    """The model with the largest weight; of equals, the first."""
    return max(weights, key=weights.__getitem__)
