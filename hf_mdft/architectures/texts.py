"""What a text tower is given for class names."""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerBase

from ..core.errors import InputError


def is_empty(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer knows no words: transformers makes such a one where there are no files."""
    return len(tokenizer) <= len(set(tokenizer.all_special_ids))


class Texts:
    """The tokens of classes, one class after the other.

    Args:
        where: Name of the model, for messages.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self._seen: dict[tuple[int, ...], str] = {}

    def check(self, name: str, tokens: torch.Tensor, length: int | None) -> None:
        """Refuse a class whose texts are cut off to those of another.

        Args:
            name: Name of the class.
            tokens: Tokens of its texts, `(texts, up to length)`.
            length: Most tokens that the text tower reads, where that is known.

        Raises:
            InputError: They are.
        """
        if length is None or tokens.shape[1] < length:
            return
        for row in map(tuple, tokens.tolist()):
            other = self._seen.setdefault(row, name)
            if other != name:
                raise InputError(
                    f"{self.where}: the texts of the classes '{other[:60]}' and '{name[:60]}' are cut off to the same "
                    f"{length} tokens; give shorter class_names"
                )
