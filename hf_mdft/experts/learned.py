"""Coefficients of a task's experts, learned for this task alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.func import functional_call
from tqdm.auto import tqdm

from ..adapter.combine import combine
from ..core.attention import quick_attention
from ..core.device import fast_bf16
from ..embedding.statistics import batch_norms, estimate_statistics
from ..heads import Head, mean_head
from ..tasks import Images
from .of_task import TaskExperts


STEPS, BATCH, LEARNING_RATE = 100, 64, 0.02
"""A few hundred coefficients need little: these steps take 7 % of a specialist's time (22 of 302 to 335 seconds)."""


def learned_average(
    experts: TaskExperts,
    weights: Mapping[str, float],
    images: Images,
    targets: torch.Tensor,
    *,
    seed: int = 0,
    at_once: int = BATCH,
    title: str | None = None,
) -> tuple[nn.Module, Head]:
    """A tower between a task's experts, with one coefficient for every expert and tensor, and the mean of their heads.

    The coefficients start as the weighted average and learn the cross-entropy to soft targets (AdaMerging's layer-wise
    coefficients, https://huggingface.co/papers/2310.02575, with distillation in place of entropy).

    Args:
        experts: The experts.
        weights: Weight of each, by name, that coefficients start as; those with 0 are left out.
        images: Unlabelled images.
        targets: Probabilities that they learn, `(N, C)`, in the images' order.
        seed: Order of the images.
        at_once: Images of one forward pass: what fits in memory. The gradient is that of `BATCH` all the same.
        title: Title of a progress bar; the default shows none.
    """
    device = torch.device(experts.device)
    bf16 = fast_bf16(device)
    kept = {name: share for name, share in weights.items() if share}
    shares = torch.tensor(list(kept.values())) / sum(kept.values())
    tower = experts.pool.tower().to(experts.device).eval().requires_grad_(False)
    head = mean_head([experts.heads[name] for name in kept]).to(experts.device)
    sources = [experts.pool.weights(name) for name in kept]
    for norm in batch_norms(tower).values():
        norm.train()  # the statistics of weights that change are those of the batch
    base = dict(tower.named_parameters())
    vectors = {
        # In half precision, as the adapter keeps them: they are all in memory.
        name: (torch.stack([source.tensor(name) for source in sources]).to(parameter) - parameter).half()
        for name, parameter in base.items()
    }
    coefficients = nn.Parameter(shares.repeat(len(vectors), 1).to(experts.device))

    def parameters() -> dict[str, torch.Tensor]:
        pairs = zip(vectors.items(), coefficients, strict=True)
        return {name: combine(base[name], vector, own) for (name, vector), own in pairs}

    optimizer = torch.optim.Adam([coefficients], LEARNING_RATE)
    generator = torch.Generator().manual_seed(seed)
    for _ in tqdm(range(STEPS), desc=title, leave=False, disable=title is None):
        rows = torch.randint(len(images), (min(BATCH, len(images)),), generator=generator)
        optimizer.zero_grad()
        for piece in rows.split(at_once):
            pixel_values = images.preprocessor.normalize(images.pixels(piece).to(experts.device))
            with quick_attention(device, bf16), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                outputs = functional_call(tower, parameters(), kwargs={"pixel_values": pixel_values})
            log_probs = head(experts.pool.architecture.features(outputs).float()).log_softmax(dim=-1)
            loss = -(targets[piece].to(device) * log_probs).sum() / len(rows)
            loss.backward()
        optimizer.step()
    with torch.no_grad():
        tower.load_state_dict(parameters(), strict=False)
    return estimate_statistics(tower, [images]).cpu().eval(), head.cpu()
