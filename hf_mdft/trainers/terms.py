"""Terms of a loss: registered by name, each with a weight."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from transformers import TrainingArguments

from ..core.errors import InputError
from ..core.registry import Registry


def weight_of(args: TrainingArguments, name: str) -> float:
    """Weight of a term: its own option `<name>_weight`, or its entry in `terms`; 0 where it has neither."""
    return args.terms.get(name) or getattr(args, f"{name}_weight", 0.0)


def term_weights(args: TrainingArguments, registry: Registry) -> dict[str, float]:
    """Weights by term, without those that are 0, in the order in which terms are summed: that of their options, then
    that of `args.terms`."""
    own = [field.name.removesuffix("_weight") for field in dataclasses.fields(args)]
    names = [name for name in [*own, *args.terms] if name in registry]
    return {name: weight for name in names if (weight := weight_of(args, name))}


def check_terms(args: TrainingArguments, registry: Registry) -> None:
    """Refuse `terms` that cannot be meant.

    Raises:
        InputError: A name is unknown, or its weight is an option of its own.
    """
    if not isinstance(args.terms, Mapping):
        raise InputError(f"terms: expected weights by name, got {args.terms!r}")
    for name, weight in args.terms.items():
        if hasattr(args, f"{name}_weight"):
            raise InputError(f"terms: the weight of '{name}' is an option of its own; set {name}_weight")
        registry.get(name)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight >= 0:
            raise InputError(f"terms: the weight of '{name}' must be a number of at least 0, got {weight!r}")
