"""What a model computes, beside its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


COSMETIC = frozenset(
    {
        "architectures", "dtype", "finetuning_task", "gradient_checkpointing", "id2label", "label2id", "license",
        "num_labels", "output_attentions", "output_hidden_states", "problem_type", "return_dict", "torch_dtype",
        "torchscript", "transformers_version", "use_return_dict",
    }
)  # fmt: skip
"""Keys of a config that name, store or present a model but leave the function as it is."""


def one_number(value: Any) -> Any:
    """A value of a config; a pair of equal numbers, as of a size's two sides, as that number."""
    pair = isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]
    return value[0] if pair else value


def functional_config(folder: Path) -> dict[str, Any]:
    """The parts of a model's `config.json` that change what it computes: plain JSON, read without transformers.

    Keys in `COSMETIC` and private ones (`_name_or_path`, `_commit_hash`) are left out, nested configs included.

    Args:
        folder: Folder of the model.

    Returns:
        Keys and values; empty where the folder has no config that can be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return _functional(config) if isinstance(config, dict) else {}


def _functional(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _functional(item) for key, item in value.items() if key not in COSMETIC and not key.startswith("_")
        }
    return [_functional(item) for item in value] if isinstance(value, list) else value
