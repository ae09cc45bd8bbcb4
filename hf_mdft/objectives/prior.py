"""The class prior of unlabelled images: estimated, never assumed uniform."""

import torch


@torch.no_grad()
def estimate_prior(probabilities: torch.Tensor, iterations: int = 10) -> torch.Tensor:
    """Class prior `(C,)` from a model's predictions `(N, C)`, by expectation maximisation (Saerens et al. 2002).

    One pseudo-count per class keeps rare classes alive; few iterations, because overconfident predictions would let
    the fixed point drop classes that are merely confused with others.
    """
    prior = torch.full((probabilities.shape[1],), 1 / probabilities.shape[1], device=probabilities.device)
    for _ in range(iterations):
        posterior = probabilities * prior
        posterior = posterior / posterior.sum(dim=1, keepdim=True).clamp(min=1e-12)
        prior = (posterior.sum(dim=0) + 1) / (len(probabilities) + len(prior))
    return prior


def prior_divergence(logits: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """`KL(prior || batch-mean prediction)`, a scalar, for logits `(batch, C)` and prior `(C,)`."""
    mean = logits.softmax(dim=-1).mean(dim=0).clamp(min=1e-8)
    return (prior * (prior.log() - mean.log())).sum()
