"""Several experts of one task beside each other: their mean accuracy, their average, their ensemble."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ..embedding.views import TEST_VIEWS
from ..experts import TaskExperts, average_model, greedy_average
from ..heads import Head
from ..tasks import Images
from .outputs import Outputs, look


@dataclass(frozen=True)
class Ensembles:
    """Rows of a task's experts, all of them at once; of a sole expert, all are its own.

    Args:
        tasks: Tasks that they are measured on.
        experts: Experts by task, with their heads.
        unlabelled: Unlabelled images by task, which the greedy average is chosen on; a task without them has no such
            row.
    """

    tasks: tuple[str, ...]
    experts: Mapping[str, TaskExperts]
    unlabelled: Mapping[str, Images]

    def predictions(self, task: str, images: Images) -> dict[str, torch.Tensor]:
        """Predicted classes `(N,)` by row; `experts_mean` holds those of every expert, `(K, N)`."""
        experts = self.experts[task]
        seen = list(self._outputs(experts, images))
        average, greedy = seen[0].classes, {}
        if len(seen) > 1:
            found = average_model(experts, self.unlabelled.get(task, images))
            average = self._classes(experts, found, images, f"average of experts {task}")
        if len(seen) == 1:
            greedy = {"experts_greedy": average}
        elif task in self.unlabelled:
            chosen = greedy_average(experts, self.unlabelled[task], title=task)
            greedy = {"experts_greedy": self._classes(experts, chosen, images, f"greedy average of experts {task}")}
        return {
            "experts_mean": torch.stack([found.classes for found in seen]),
            "experts_average": average,
            **greedy,
            "ensemble": _mean([found.logits for found in seen]),
            "ensemble_views": _mean([found.log_probs for found in seen]),
        }

    def _classes(self, experts: TaskExperts, model: tuple[nn.Module, Head], images: Images, desc: str) -> torch.Tensor:
        tower, head = model
        return look(tower.to(experts.device), experts.pool.architecture, head, images, desc=desc).classes

    def _outputs(self, experts: TaskExperts, images: Images) -> Iterator[Outputs]:
        for name, head in experts.heads.items():
            tower = experts.pool.tower(name).to(experts.device)
            yield look(tower, experts.pool.architecture, head, images, views=TEST_VIEWS, desc=f"expert {name}")


def _mean(logits: list[torch.Tensor]) -> torch.Tensor:
    """Classes `(N,)` of the mean of several models' probabilities (deep ensembles,
    https://huggingface.co/papers/1612.01474)."""
    return torch.stack([found.softmax(dim=-1) for found in logits]).mean(dim=0).argmax(dim=-1)
