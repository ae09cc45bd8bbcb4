"""How large task vectors are and how alike."""

from __future__ import annotations

import torch

from .manifest import ModelPool


def task_vector_gram(pool: ModelPool) -> torch.Tensor:
    """Inner products `(K, K)` of the experts' task vectors over the whole tower, in fp64."""
    vectors = pool.vectors()
    size = len(vectors.experts)
    gram = torch.zeros(size, size, dtype=torch.float64)
    for name in vectors.names():
        stack = vectors.stack(name).flatten(1).double()
        gram += stack @ stack.T
    return gram


def describe(pool: ModelPool) -> str:
    """The pool as text: revisions, relative norms of task vectors, pairwise cosines."""
    gram = task_vector_gram(pool)
    norms = gram.diagonal().sqrt()
    cosines = gram / (norms[:, None] * norms[None]).clamp(min=1e-12)
    base_norm = sum(tensor.double().square().sum().item() for _, tensor in pool.base_weights.items()) ** 0.5
    experts = list(pool.experts)
    width = max(len(name) for name in [*experts, "expert"])
    lines = [f"base: {pool.base} @ {pool.base.revision[:19]} ({pool.architecture.name})", ""]
    lines.append(f"{'expert':<{width}}  |tau|/|theta_0|  revision             id")
    for task, norm in zip(experts, norms.tolist(), strict=True):
        source = pool.experts[task]
        lines.append(f"{task:<{width}}  {norm / base_norm:>15.4f}  {source.revision[:19]:<19}  {source}")
    missing = [task for task in pool.tasks if task not in pool.experts]
    lines += [f"{task:<{width}}  no expert" for task in missing]
    lines += ["", "cosines of task vectors:"]
    for task, row in zip(experts, cosines.tolist(), strict=True):
        lines.append(f"{task:<{width}}  " + " ".join(f"{value:6.2f}" for value in row))
    return "\n".join(lines)
