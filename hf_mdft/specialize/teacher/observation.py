"""One model's outputs on a task's images, under several views."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...embedding.views import FEW_VIEWS
from ...heads import Head
from ...objectives import mean_log_probs


@dataclass(frozen=True)
class Source:
    """Outputs of one model on a task's images.

    Args:
        logits: Logits on the images as they are, `(N, C)`.
        log_probs: Log-probabilities averaged over views, `(N, C)`.
        features: Embedding averaged over the same views, `(N, width)`.
        held_out: Predicted class under each held-out view, `(V, N)`.
        consistency: Share of predictions that small translations leave as they are.
        trusted: Whether the model has full weight in the ensemble, whatever the evidence for it.
        frequencies: Its class frequencies where they are not the mean of `logits`, `(C,)`.
    """

    logits: torch.Tensor
    log_probs: torch.Tensor
    features: torch.Tensor
    held_out: torch.Tensor
    consistency: float = 1.0
    trusted: bool = False
    frequencies: torch.Tensor | None = None

    @property
    def class_frequencies(self) -> torch.Tensor:
        """Mean prediction, `(C,)`."""
        return self.logits.softmax(dim=-1).mean(dim=0) if self.frequencies is None else self.frequencies

    @property
    def predictions(self) -> torch.Tensor:
        """Predicted class of the images as they are, `(N,)`."""
        return self.logits.argmax(dim=-1)


def observe(
    features: torch.Tensor, head: Head, held_out_views: int = 0, averaged: bool = True, trusted: bool = False
) -> Source:
    """Outputs of a model, from its embeddings.

    Args:
        features: Embeddings under V views, `(V, N, width)`, the images as they are first.
        head: Head of the task.
        held_out_views: How many of the views, the last ones, are held out for the gate.
        averaged: Off: log-probabilities and embedding are those of the images as they are, and other views are for
            consistency only.
        trusted: Whether the model has full weight in the ensemble.
    """
    seen = len(features) - held_out_views
    logits = head(features[:seen])
    predictions = logits[: len(FEW_VIEWS)].argmax(dim=-1)
    return Source(
        logits=logits[0],
        log_probs=mean_log_probs(logits if averaged else logits[:1]),
        features=features[: seen if averaged else 1].mean(dim=0),
        held_out=head(features[seen:]).argmax(dim=-1),
        consistency=(predictions[1:] == predictions[0]).float().mean().item() if seen > 1 else 1.0,
        trusted=trusted,
    )
