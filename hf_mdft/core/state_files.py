"""Nested state of optimizers, schedulers and generators as safetensors: nothing that could hold code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file


TENSOR, ARRAY, TUPLE, DICT = "tensor", "array", "tuple", "dict"


def save_state(state: Any, file: Path) -> None:
    """Write nested dicts, lists and tuples of tensors, numpy arrays, numbers, text and `None` to a safetensors file.

    Args:
        state: The state; keys of dicts are text or whole numbers.
        file: File to write.

    Raises:
        TypeError: It holds something else.
    """
    tensors: dict[str, torch.Tensor] = {}
    structure = _structure(state, tensors)
    save_file(tensors, file, {"structure": json.dumps(structure)})


def load_state(file: Path) -> Any:
    """What `save_state` has written, on the CPU."""
    with safe_open(file, framework="pt") as opened:
        return _value(json.loads(opened.metadata()["structure"]), opened.get_tensor)


def _structure(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor | np.ndarray):
        name = str(len(tensors))
        is_array = isinstance(value, np.ndarray)
        tensors[name] = torch.from_numpy(value.copy()) if is_array else value.detach().cpu().contiguous().clone()
        return {ARRAY if is_array else TENSOR: name}
    if isinstance(value, dict):
        return {DICT: [[key, _structure(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {TUPLE: [_structure(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_structure(item, tensors) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} cannot be kept in a checkpoint")


def _value(structure: Any, tensor: Any) -> Any:
    if isinstance(structure, list):
        return [_value(item, tensor) for item in structure]
    if not isinstance(structure, dict):
        return structure
    ((kind, content),) = structure.items()
    if kind == TENSOR:
        return tensor(content)
    if kind == ARRAY:
        return tensor(content).numpy()
    if kind == TUPLE:
        return tuple(_value(item, tensor) for item in content)
    return {key: _value(item, tensor) for key, item in content}
