"""Top-1 accuracy."""

from __future__ import annotations

import datasets
import evaluate
import torch
from torch import nn

from ..architectures import Architecture
from ..embedding import embed_images
from ..heads import Head
from ..tasks import Images


class Accuracy(evaluate.Metric):
    """Share of equal predictions and references. Ships with the package: `evaluate.load` needs the network."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of predictions that equal their reference.",
            citation="",
            inputs_description="predictions and references: class indices",
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        equal = sum(int(p == r) for p, r in zip(predictions, references, strict=True))
        return {"accuracy": equal / len(references)}


def predict(tower: nn.Module, architecture: Architecture, head: Head, images: Images, **options) -> torch.Tensor:
    """Predicted classes `(N,)`."""
    return head(embed_images(tower, architecture, images, **options)).argmax(dim=-1)


def accuracy(predictions: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of correct predictions, 0 to 1.

    Args:
        predictions: Predicted classes `(N,)`; of several models, `(K, N)`, it is the mean over them.
        labels: Class of every image, `(N,)`.
    """
    labels = labels.expand(predictions.shape)
    found = Accuracy().compute(predictions=predictions.flatten().tolist(), references=labels.flatten().tolist())
    return found["accuracy"]
