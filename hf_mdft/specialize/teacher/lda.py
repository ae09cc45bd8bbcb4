"""Linear discriminant analysis, fitted to the teacher's own targets over all images."""

from __future__ import annotations

import torch

from ...experts import joint_features
from ...objectives import certainty, entropy
from .base import TEACHER_PARTS, TeacherState


ENOUGH_PER_CLASS = 10
"""Images per class below which a covariance cannot be estimated: the targets stay as they are."""

SHRINKAGE = 0.01
"""Share of the identity in the covariance. From 0.3 down to 0.01 the gain rises; 0 may have no inverse."""

FITS = 2
"""Number of fits. The second one gains, further ones fit their own mistakes."""


@TEACHER_PARTS.register("lda")
def lda(state: TeacherState) -> torch.Tensor:
    """Targets refined in the embeddings of all models side by side; without an ensemble, of those with full weight."""
    sources = [s for s in state.sources.values() if state.args.ensemble_weight or state.counts_fully(s)]
    features = [s.features if s.joint_features is None else s.joint_features for s in sources]
    return refine(state.probabilities, joint_features(features), state.args.lda_weight)


def refine(probabilities: torch.Tensor, features: torch.Tensor, weight: float) -> torch.Tensor:
    """Targets multiplied by the posterior of an LDA fitted to them, to the power of `weight`.

    A classifier with text or few-label heads is applied to one image at a time; classes that form clusters in the
    embedding correct those of its mistakes that lie in another class's cluster. One Gaussian per class with a common
    covariance, fitted to all images weighted by target and certainty (as in https://huggingface.co/papers/2402.04087,
    with targets in place of labels; https://huggingface.co/papers/2406.01837 for doing so transductively).

    The posterior is evaluated on the images that it was fitted to, so it is overconfident: its weight falls by
    N / (N + width), and in the end the mean entropy of the targets is what it was.

    Args:
        probabilities: Targets `(N, C)`.
        features: Embeddings `(N, width)`.
        weight: Exponent of the posterior; 0 is off.

    Returns:
        New targets `(N, C)`; the same tensor where there are fewer than `ENOUGH_PER_CLASS` images per class.
    """
    (count, classes), width = probabilities.shape, features.shape[-1]
    if not weight or count < ENOUGH_PER_CLASS * classes:
        return probabilities
    given = found = probabilities.clamp(min=1e-12).log()
    for _ in range(FITS):
        found = given + weight * count / (count + width) * log_posterior(features, found.softmax(dim=-1))
    return with_entropy_of(found, probabilities)


def with_entropy_of(logits: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Probabilities at the temperature at which their mean entropy is that of the given ones."""
    wanted, low, high = mean_entropy(given), 1e-2, 1e3
    for _ in range(25):  # halves the interval's logarithm
        temperature = (low * high) ** 0.5
        tempered = (logits / temperature).softmax(dim=-1)
        low, high = (temperature, high) if mean_entropy(tempered) < wanted else (low, temperature)
    return tempered


def mean_entropy(probabilities: torch.Tensor) -> float:
    """Mean over images of the entropy of probabilities `(N, C)`, in nats."""
    return entropy(probabilities.clamp(min=1e-12).log()).mean().item()


def log_posterior(features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-posterior of each class, `(N, C)`, of Gaussians fitted to soft targets."""
    kind, features, targets = features.dtype, features.double(), targets.double()  # the scatter is a small difference
    weights = targets * certainty(targets).unsqueeze(-1)
    sizes = weights.sum(dim=0).clamp(min=1e-6)
    means = weights.T @ features / sizes.unsqueeze(-1)
    scatter = (weights.sum(dim=-1, keepdim=True) * features).T @ features - (means * sizes.unsqueeze(-1)).T @ means
    covariance = scatter / sizes.sum()
    identity = torch.eye(len(covariance), dtype=features.dtype, device=features.device)
    covariance = torch.lerp(covariance, covariance.diagonal().mean().clamp(min=1e-6) * identity, SHRINKAGE)
    slopes = torch.linalg.solve(covariance, means.T)
    scores = features @ slopes - 0.5 * (means.T * slopes).sum(dim=0) + (sizes / sizes.sum()).log()
    return scores.log_softmax(dim=-1).to(kind)
