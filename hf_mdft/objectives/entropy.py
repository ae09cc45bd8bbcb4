"""Predictions: their Shannon entropy, and their mean."""

import math

import torch


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """`H(p) = -sum_c p_c ln p_c` in nats, `(batch,)`, for `p = softmax(logits)` with logits `(batch, C)`."""
    log_p = finite(logits.log_softmax(dim=-1))
    return -(log_p.exp() * log_p).sum(dim=-1)


def finite(log_probs: torch.Tensor) -> torch.Tensor:
    """Log-probabilities with the lowest number that there is for those of a class that a head rules out, so that
    0 ln 0 is 0."""
    return log_probs.clamp(min=torch.finfo(log_probs.dtype).min)


def certainty(probabilities: torch.Tensor) -> torch.Tensor:
    """1 - entropy / its largest value, `(N,)`, of probabilities `(N, C)`."""
    share = entropy(probabilities.clamp(min=1e-12).log()) / max(max_entropy(probabilities.shape[-1]), 1e-12)
    return (1 - share).clamp(0, 1)


def max_entropy(num_classes: int) -> float:
    """`ln C`: dividing by it makes entropies of tasks with different class counts comparable."""
    return math.log(num_classes)


def image_information(probabilities: torch.Tensor) -> torch.Tensor:
    """`KL(p(c | x) || mean p(c))` of every image in nats, `(N,)`, for probabilities `(N, C)`; its mean is the mutual
    information of image and predicted class: high where predictions are confident and differ between images. In double
    precision: in single, a class's mean can be 0 where an image's probability is not."""
    probabilities = probabilities.double()
    return (torch.xlogy(probabilities, probabilities) - torch.xlogy(probabilities, probabilities.mean(dim=0))).sum(-1)


def mean_log_probs(logits: torch.Tensor) -> torch.Tensor:
    """Normalised geometric mean `(N, C)`, as log-probabilities, of predictions with logits `(V, N, C)`."""
    return logits.log_softmax(dim=-1).mean(dim=0).log_softmax(dim=-1)
