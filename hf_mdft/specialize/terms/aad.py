"""Attracting and dispersing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from .base import STUDENT_TERMS, StudentBatch, StudentTerm


if TYPE_CHECKING:
    from ..arguments import SpecializeArguments
    from ..teacher import Teacher


NEIGHBORS = 5
"""Nearest images that each one is drawn to; the authors' 5."""

DECAY = 5.0
"""How fast dispersion fades, in `(1 + 10 progress) ** -DECAY`; the authors' value for VisDA. They chose it for each
data set."""


@STUDENT_TERMS.register("aad")
class AttractingAndDispersing(StudentTerm):
    """Predictions like those of the nearest images of all in the embedding, and unlike those of the rest of the batch
    (AaD, Yang et al. 2022, https://huggingface.co/papers/2205.04183).

    Minus the sum of `p . p'` over the nearest images, plus, fading, its sum over the other images of the batch; means
    over the batch. Embeddings and predictions of all images are remembered; they start as the teacher's, and those of
    a batch are renewed when it comes. With several processes, each remembers for itself.
    """

    def prepare(self, teacher: Teacher, args: SpecializeArguments) -> None:
        self.register_buffer("features", F.normalize(teacher.features.float(), dim=-1))
        self.register_buffer("predictions", teacher.probabilities.float().clone())

    def forward(self, batch: StudentBatch) -> torch.Tensor:
        p = batch.logits.softmax(dim=-1)
        attracted = (p * self._of_neighbors(batch, p).sum(dim=1)).sum(dim=-1)
        others = p @ p.T
        dispersed = others.sum(dim=-1) - others.diagonal()
        return (dispersed * (1 + 10 * batch.progress) ** -DECAY - attracted).mean()

    @torch.no_grad()
    def _of_neighbors(self, batch: StudentBatch, p: torch.Tensor) -> torch.Tensor:
        """Remembered predictions of each image's nearest ones, `(n, NEIGHBORS, C)`, once the batch is remembered."""
        features = F.normalize(batch.features.detach().float(), dim=-1)
        self.features[batch.index] = features
        self.predictions[batch.index] = p.detach()
        cosines = features @ self.features.T
        cosines[
            torch.arange(len(features), device=features.device), batch.index
        ] = -torch.inf  # none is its own neighbor
        nearest = cosines.topk(min(NEIGHBORS, len(self.features) - 1), dim=-1).indices
        return self.predictions[nearest]
