"""The class prior of unlabelled images: estimated, never assumed uniform."""

import math

import torch

from .entropy import max_entropy


@torch.no_grad()
def estimate_prior(probabilities: torch.Tensor, method: str = "shrunk", iterations: int = 100) -> torch.Tensor:
    """Class prior `(C,)` from a model's predictions.

    Args:
        probabilities: Predictions `(N, C)` on unlabelled images.
        method: `"shrunk"`: their mean, shrunk half-way to uniform. `"em"`: expectation maximisation (Saerens et al.
            2002, https://doi.org/10.1162/089976602753284446), which needs the prior that the model was trained under;
            a downloaded expert comes without it, uniform is assumed, and the fixed point then exaggerates the model's
            own biases. `"uniform"`: an assumption, for studies.
        iterations: Iterations of `"em"`.
    """
    count = probabilities.shape[-1]
    uniform = torch.full((count,), 1 / count, dtype=probabilities.dtype, device=probabilities.device)
    if method == "uniform":
        return uniform
    if method == "shrunk":
        return (probabilities.mean(dim=0) + uniform) / 2
    prior = uniform
    for _ in range(iterations):
        posterior = probabilities * prior
        prior = (posterior / posterior.sum(dim=-1, keepdim=True).clamp(min=1e-12)).mean(dim=0)
    return (prior + 1e-6) / (prior + 1e-6).sum()


def prior_divergence(logits: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """`KL(prior || batch-mean prediction)`, a scalar, for logits `(batch, C)` and prior `(C,)`."""
    return (torch.xlogy(prior, prior) - prior * log_mean(logits)).sum()


def log_mean(logits: torch.Tensor) -> torch.Tensor:
    """Logarithm of the batch-mean prediction, `(C,)`, for logits `(batch, C)`: finite, and with a gradient, also for
    classes that no image is taken for."""
    return logits.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(logits))


def concentration(logits: torch.Tensor) -> torch.Tensor:
    """`-H(batch-mean prediction) / ln C`, a scalar in [-1, 0], for logits `(batch, C)`: smallest where all classes are
    predicted equally often."""
    mean = logits.softmax(dim=-1).mean(dim=0).clamp(min=1e-8)
    return (mean * mean.log()).sum() / max_entropy(logits.shape[-1])


LEAST_EVENNESS = 0.9
"""Effective number of predicted classes, in shares of what even draws would have, below which they are uneven. Of the
tasks' own images (A, B, D) it was 0.92 to 1, of class sizes from 50 to 1 it was 0.59 to 0.94."""


def class_shares(predictions: torch.Tensor) -> torch.Tensor:
    """Shares `(C,)` of the most likely classes of predictions `(N, C)`, each image counted once."""
    return predictions.argmax(dim=-1).bincount(minlength=predictions.shape[-1]) / len(predictions)


def effective_classes(shares: torch.Tensor, images: int) -> float:
    """Exponential of the entropy of class shares `(C,)` of so many images, in shares of what as many even draws would
    have on average: less than C, the more so the fewer they are."""
    shares = shares.double()
    return math.exp(-torch.xlogy(shares, shares).sum().item() - _entropy_of_draws(len(shares), images))


def _entropy_of_draws(classes: int, images: int) -> float:
    """Expected entropy of the class shares of so many even draws: of each class the number is binomial."""
    if classes == 1:
        return 0.0
    k = torch.arange(1, images + 1, dtype=torch.double)
    n, p = torch.tensor(float(images), dtype=torch.double), 1 / classes
    log_chance = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    log_chance += k * math.log(p) + (n - k) * math.log1p(-p)
    return -classes * (log_chance.exp() * torch.xlogy(k / n, k / n)).sum().item()
