"""Whether an expert was fine-tuned from the pool's base, or from another model of the same size."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable

import torch

from ..core.errors import InputError
from .weights import TowerWeights


logger = logging.getLogger(__name__)

LARGEST = 8
"""Matrices that are compared, the largest first."""

LEAST_COSINE = 0.3
"""Cosine of the matrices below which two models have nothing in common. The experts of the development pools have
0.996 and more; matrices of independent starts have about 0."""


def check_kinship(expert: TowerWeights, base: TowerWeights) -> None:
    """Refuse an expert of another base.

    Raises:
        InputError: Its largest matrices point elsewhere than the base's.
    """
    shapes = base.shapes()
    sizes = {name: math.prod(shape) for name, shape in shapes.items() if len(shape) > 1}
    product = own = theirs = 0.0
    for name in sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]:
        a, b = expert.tensor(name).double(), base.tensor(name).double()
        product += (a * b).sum().item()
        own, theirs = own + a.square().sum().item(), theirs + b.square().sum().item()
    cosine = product / max((own * theirs) ** 0.5, 1e-30)
    if cosine < LEAST_COSINE:
        raise InputError(
            f"{expert.source}: fine-tuned from another model than the base {base.source}, though of the same size "
            f"(cosine of their weights {cosine:.2f}, after fine-tuning it is close to 1); give its own base "
            "(--allow-base-mismatch takes it)"
        )


SAME = 5e-3
"""Distance of two tensors, of the length of one, up to which they are the same but for rounding: to bfloat16 it is
2e-3 at most."""


def warn_of_own_parts(expert: TowerWeights, base: TowerWeights, shared: Iterable[str]) -> None:
    """Warn where an expert changed a part that the pool takes from the base.

    Args:
        expert, base: Tensors of both.
        shared: Keys of these parts, or what their keys begin with.
    """
    both = set(expert.keys()) & set(base.keys())
    for part in shared:
        for key in _first_and_last(key for key in both if key.startswith(part) and not _is_vector(base.shape(key))):
            if expert.shape(key) != base.shape(key) or _differ(expert.raw(key), base.raw(key)):
                logger.warning(
                    "%s: its '%s' differs from the base's, which is used for all experts: expect other figures than "
                    "its own",
                    expert.source,
                    key,
                )
                break


def _first_and_last(keys: Iterable[str]) -> list[str]:
    """Of every kind of tensor the first layer's and the last one's: an adapter that was merged may have changed few
    kinds, a fine-tuning few layers."""
    kinds: dict[str, list[str]] = {}
    for key in sorted(keys, key=lambda key: (len(key), key)):  # layer 10 behind layer 9
        kinds.setdefault(re.sub(r"\.\d+\.", ".", key), []).append(key)
    return [key for found in kinds.values() for key in dict.fromkeys((found[0], found[-1]))]


def _is_vector(shape: tuple[int, ...]) -> bool:
    """Biases and norms, whose small numbers tell roundings from changes no more; a temperature is none."""
    return len(shape) == 1 and shape != (1,)


def _differ(own: torch.Tensor, known: torch.Tensor) -> bool:
    own, known = own.float(), known.float()  # not double: a table of 256,000 tokens would take gigabytes more
    return not torch.linalg.vector_norm(own - known) <= SAME * torch.linalg.vector_norm(known)
