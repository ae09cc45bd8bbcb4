"""One model's outputs on a task's images, under several views."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from ..embedding.views import FEW_VIEWS
from ..heads import Head


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
        joint_features: Embeddings in which classes are told apart where they are not `features`: those of several
            models side by side, `(N, widths)`.
        of_pool: Whether `features` are embeddings by a tower of the pool.
    """

    logits: torch.Tensor
    log_probs: torch.Tensor
    features: torch.Tensor
    held_out: torch.Tensor
    consistency: float = 1.0
    trusted: bool = False
    frequencies: torch.Tensor | None = None
    joint_features: torch.Tensor | None = None
    of_pool: bool = True

    @property
    def class_frequencies(self) -> torch.Tensor:
        """Mean prediction, `(C,)`."""
        return self.logits.softmax(dim=-1).mean(dim=0) if self.frequencies is None else self.frequencies

    @property
    def predictions(self) -> torch.Tensor:
        """Predicted class of the images as they are, `(N,)`."""
        return self.logits.argmax(dim=-1)


def observe(
    views: Iterable[torch.Tensor],
    head: Head,
    held_out_from: int | None = None,
    averaged: bool = True,
    trusted: bool = False,
) -> Source:
    """Outputs of a model, from its embeddings; one view's at a time is held.

    Args:
        views: Embeddings `(N, width)` under one view after the other, `FEW_VIEWS` first.
        head: Head of the task.
        held_out_from: How many views there are before those that are held out for the gate; the default is all.
        averaged: Off: log-probabilities and embedding are those of the images as they are, and other views are for
            consistency only.
        trusted: Whether the model has full weight in the ensemble.
    """
    held_out, same, count = [], [], 0
    for number, features in enumerate(views):
        logits = head(features)
        if held_out_from is not None and number >= held_out_from:
            held_out.append(logits.argmax(dim=-1))
            continue
        if number == 0:
            plain, log_probs, mean = logits, torch.zeros_like(logits), torch.zeros_like(features)
        elif number < len(FEW_VIEWS):
            same.append((logits.argmax(dim=-1) == plain.argmax(dim=-1)).float().mean().item())
        if averaged or number == 0:
            log_probs, mean, count = log_probs + logits.log_softmax(dim=-1), mean + features, count + 1
    return Source(
        logits=plain,
        log_probs=(log_probs / count).log_softmax(dim=-1),
        features=mean / count,
        held_out=torch.stack(held_out) if held_out else plain.new_zeros(0, len(plain), dtype=torch.long),
        consistency=sum(same) / len(same) if same else 1.0,
        trusted=trusted,
    )


def observe_outside(views: Sequence[torch.Tensor]) -> Source:
    """Outputs of a model from outside the pool, whose embedding is not known: its log-probabilities stand for it.

    Args:
        views: Log-probabilities `(N, C)` under one view after the other, the images as they are first.
    """
    plain, log_probs = views[0], torch.stack(list(views)).mean(dim=0).log_softmax(dim=-1)
    classes = plain.argmax(dim=-1)
    same = [(view.argmax(dim=-1) == classes).float().mean().item() for view in views[1:]]
    return Source(
        logits=plain,
        log_probs=log_probs,
        features=log_probs - log_probs.mean(dim=-1, keepdim=True),
        held_out=plain.new_zeros(0, len(plain), dtype=torch.long),
        consistency=sum(same) / len(same) if same else 1.0,
        of_pool=False,
    )
