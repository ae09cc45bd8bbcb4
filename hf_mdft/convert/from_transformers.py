"""Models of transformers whose weights are not where or as pools read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from ..architectures import read_config
from ..core.errors import InputError


COUNTS = ("position_ids", "num_batches_tracked", "relative_position_index")
"""Ends of names of tensors that hold whole numbers."""

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def model_of(folder: Path, tensors: Mapping[str, torch.Tensor], where: str) -> PreTrainedModel:
    """The model that a folder's config names, with these tensors, in fp32; nothing is made up.

    Args:
        folder: Holds the config.
        tensors: The tensors by name.
        where: Names the model in messages.

    Raises:
        InputError: The config names no class of transformers, or tensors are missing, left over, of another shape or
            no plain numbers.
    """
    config = read_config(folder, where)
    name = next(iter(config.architectures or ()), "")
    model_class = getattr(transformers, name, None)
    if not (isinstance(model_class, type) and issubclass(model_class, PreTrainedModel)):
        raise InputError(f"{where}: '{name}' of config.json's architectures is no class of transformers; name one")
    if model_class.main_input_name != "pixel_values" and not hasattr(config, "vision_config"):
        raise InputError(f"{where}: {name} is no image model")
    for key, tensor in tensors.items():
        if tensor.dtype not in FLOATS and not key.endswith(COUNTS):
            raise InputError(f"{where}: tensor '{key}' is stored as {tensor.dtype}; take a revision in fp32 or fp16")
        if not torch.isfinite(tensor).all():
            raise InputError(f"{where}: tensor '{key}' holds NaN or infinity; take another revision")
    whole = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
    model, info = model_class.from_pretrained(
        None, config=config, state_dict=whole, output_loading_info=True, ignore_mismatched_sizes=True,
        dtype=torch.float32,
    )  # fmt: skip
    other = {key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]}
    for what, keys in (("is missing", info["missing_keys"]), ("has another shape than the config says", other)):
        if keys:
            raise InputError(f"{where}: tensor '{min(keys)}' {what} ({len(keys)} in all); take another revision")
    left = sorted(key for key in info["unexpected_keys"] if not key.endswith("position_ids"))
    if left:
        raise InputError(f"{where}: {name} has no place for tensor '{left[0]}' ({len(left)} in all); check the config")
    return model.eval()


def plain_model(folder: Path, model_class: type[PreTrainedModel]) -> PreTrainedModel:
    """The model as transformers itself loads it from a folder, in fp32."""
    return model_class.from_pretrained(folder, dtype=torch.float32).eval()
