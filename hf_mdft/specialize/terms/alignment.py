"""Embeddings that stay aligned with the reference's."""

from __future__ import annotations

import torch

from ...objectives import embedding_distance
from .base import STUDENT_TERMS, StudentBatch, StudentTerm


@STUDENT_TERMS.register("alignment")
class Alignment(StudentTerm):
    """1 - cosine between the embeddings of the student and of the teacher's reference."""

    def forward(self, batch: StudentBatch) -> torch.Tensor:
        return embedding_distance(batch.features, batch.target_features).mean()
