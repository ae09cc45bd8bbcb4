"""What a text tower is given for class names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import PreTrainedTokenizerBase

from ..core.errors import InputError


def is_empty(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer knows no words: transformers makes such a one where there are no files."""
    return len(tokenizer) <= len(set(tokenizer.all_special_ids))


def check_distinct(tokens: Mapping[str, torch.Tensor], where: str) -> None:
    """Refuse classes that a text tower cannot tell apart.

    Args:
        tokens: Tokens of every class's texts `(texts, length)`, padded alike.
        where: Name of the model, for the message.

    Raises:
        InputError: All texts of two classes are the same tokens.
    """
    seen: dict[str, str] = {}
    for name, rows in tokens.items():
        other = seen.setdefault(str(rows.tolist()), name)
        if other != name:
            raise InputError(
                f"{where}: the texts of the classes '{other[:60]}' and '{name[:60]}' are the same tokens to this "
                "model's tokenizer (unknown, or cut off); give other class_names"
            )
