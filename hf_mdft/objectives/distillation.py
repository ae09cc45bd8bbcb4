"""Agreement with the task's own expert: what stops entropy minimisation from drifting."""

import torch
from torch.nn import functional as F

from .entropy import finite


def expert_divergence(logits: torch.Tensor, expert_logits: torch.Tensor, temperature: float = 2.0) -> torch.Tensor:
    """`T^2 KL(q || p)` per sample `(batch,)`, with q the expert's and p the model's softmax at temperature T.

    T^2 keeps the size of the gradient independent of T (Hinton et al. 2015,
    https://huggingface.co/papers/1503.02531).

    Args:
        logits: Logits of the model, `(batch, C)`.
        expert_logits: Logits of the task's expert, `(batch, C)`; not differentiated.
        temperature: Temperature T; 2 softens the saturated predictions of fine-tuned models.
    """
    log_p = finite((logits / temperature).log_softmax(dim=-1))
    q = (expert_logits.detach() / temperature).softmax(dim=-1)  # not its logarithm, which may be that of 0
    return temperature**2 * F.kl_div(log_p, q, reduction="none").sum(dim=-1)


def hard_distillation(logits: torch.Tensor, expert_logits: torch.Tensor) -> torch.Tensor:
    """Cross-entropy `(batch,)` of the model to the expert's class: a pseudo-label (SyMerge, Jung et al. 2024,
    https://huggingface.co/papers/2412.19098)."""
    return F.cross_entropy(logits, expert_logits.argmax(dim=-1), reduction="none")


@torch.no_grad()
def agreement_rule(logits: torch.Tensor, expert_logits: torch.Tensor) -> torch.Tensor:
    """1 where the expert is followed, 0 where both disagree and the model is the more confident one (SyMerge, Jung et
    al. 2024, https://huggingface.co/papers/2412.19098). `(batch,)`."""
    p, q = logits.softmax(dim=-1).max(dim=-1), expert_logits.softmax(dim=-1).max(dim=-1)
    return 1.0 - ((p.indices != q.indices) & (p.values > q.values)).float()


def embedding_distance(features: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """`1 - cos(features, target)` per sample `(batch,)`; the target is not differentiated."""
    return 1 - torch.cosine_similarity(features, target.detach(), dim=-1)
