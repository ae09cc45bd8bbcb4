"""The class prior of unlabelled images: estimated, never assumed uniform."""

import torch


@torch.no_grad()
def estimate_prior(probabilities: torch.Tensor) -> torch.Tensor:
    """Class prior `(C,)` from a model's predictions `(N, C)`: their mean, shrunk half-way to uniform.

    Expectation maximisation on the same predictions (Saerens et al. 2002) needs the prior that the model was trained
    under, which a downloaded expert does not tell; without it the fixed point exaggerates the model's own biases.
    """
    mean = probabilities.mean(dim=0)
    return (mean + 1 / len(mean)) / 2


def prior_divergence(logits: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """`KL(prior || batch-mean prediction)`, a scalar, for logits `(batch, C)` and prior `(C,)`."""
    mean = logits.softmax(dim=-1).mean(dim=0).clamp(min=1e-8)
    return (prior * (prior.log() - mean.log())).sum()
