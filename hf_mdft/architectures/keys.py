"""Names of tensors in a model and in files, which have them in several layouts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key


def canonical_names(model: PreTrainedModel, keys: list[str], wrapper: str = "") -> dict[str, str]:
    """Tensor name in a model -> key in a file, with transformers' own renaming; other keys are left out.

    Args:
        model: A model of the right shapes (the meta device will do).
        keys: Keys in the file.
        wrapper: Name of the model inside a larger one that files may be of.
    """
    state = model.state_dict()
    return {name: key for name, key in _renamed(model, keys, wrapper, state) if name in state}


def surplus(model: PreTrainedModel, keys: list[str], wrapper: str = "") -> list[str]:
    """Keys in a file that are of more layers: of a tensor's name but for the layer's number."""
    state = model.state_dict()
    kind = partial(re.sub, r"\.\d+(?=\.)", ".*")
    kinds = {kind(name) for name in state}
    prefix = f"{model.base_model_prefix}."  # which files of a backbone leave out
    renamed = _renamed(model, keys, wrapper, state)
    return [key for name, key in renamed if name not in state and {kind(name), kind(prefix + name)} & kinds]


def _renamed(
    model: PreTrainedModel, keys: list[str], wrapper: str, state: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, str]]:
    """Name that each key would have in the model, and the key."""
    renamings = [t for t in get_model_conversion_mapping(model) if isinstance(t, WeightRenaming)]
    inner = f"{wrapper}." if wrapper else ""
    is_wrapped = bool(inner) and any(name.startswith(inner) for name in state)
    for key in keys:
        name, _ = rename_source_key(key, renamings, [], model.base_model_prefix, state)
        yield (name if is_wrapped or name in state else name.removeprefix(inner)), key
