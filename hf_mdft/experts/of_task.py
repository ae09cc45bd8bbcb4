"""The experts of one task: run, weighed, and the one that one would take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..embedding import expert_features
from ..embedding.views import FEW_VIEWS, Offset
from ..heads import Head
from ..pool import ModelPool
from ..tasks import Images
from .observation import Source, observe
from .weights import weigh


@dataclass(frozen=True)
class TaskExperts:
    """A task's experts with their heads.

    Args:
        task: Name of the task.
        pool: Base and experts.
        heads: Head of each of the task's experts, by the expert's name.
        device: Device that they are run on.
    """

    task: str
    pool: ModelPool
    heads: Mapping[str, Head]
    device: torch.device | str = "cpu"

    def observe(
        self, images: Images, views: tuple[Offset, ...] = FEW_VIEWS, *, title: str | None = None, **options: object
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

    def weights(self, images: Images) -> dict[str, float]:
        """How far each expert is trusted, by name, in shares of all; see `weigh`."""
        return weigh(self.observe(images)) if len(self.heads) > 1 else dict.fromkeys(self.heads, 1.0)

    def chosen(self, images: Images, *, title: str | None = None) -> str:
        """Name of the expert that one would take without labels: the one that is trusted most (`weigh`).

        Args:
            images: Unlabelled images.
            title: Begins the titles of progress bars; the default shows none.
        """
        if len(self.heads) == 1:
            return next(iter(self.heads))
        return most_trusted(weigh(self.observe(images, title=title)))


def most_trusted(weights: Mapping[str, float]) -> str:
    """The model with the largest weight; of equals, the first."""
    return max(weights, key=weights.__getitem__)
