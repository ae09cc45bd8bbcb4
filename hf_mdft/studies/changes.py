"""Rows of an ablation that are written as text: `specialize.max_steps=600,specialize.ema_decay=0`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from ..core.errors import InputError
from ..recipes.options import KINDS, read_options


Change = dict[str, dict[str, Any]]
"""Options by part of the recipe."""

EXAMPLE = "specialize.max_steps=600,specialize.ema_decay=0"


def read_changes(texts: Iterable[str]) -> tuple[dict[str, Change], dict[str, Change]]:
    """Changes of phase 1 and of phase 2, by the text that says them.

    Args:
        texts: `PART.OPTION=VALUE`, several with commas between them; values as in YAML, without commas.

    Raises:
        InputError: One is written otherwise, an option is unknown or has another type, or a change is of both phases.
    """
    meta, specialists = {}, {}
    for text in texts:
        change = _read(text)
        if "specialize" not in change:
            meta[text] = change
        elif len(change) == 1:
            specialists[text] = change
        else:
            raise InputError(f"--change {text}: phase 1 and phase 2 have a table each; give their changes apart")
    return meta, specialists


def _read(text: str) -> Change:
    change: Change = {}
    for item in text.split(","):
        name, equals, value = item.strip().partition("=")
        part, dot, option = name.partition(".")
        if not (equals and dot and option and part in KINDS):
            parts = ", ".join(KINDS)
            raise InputError(f"--change {text}: '{item}' is not PART.OPTION=VALUE ({parts}), as in {EXAMPLE}")
        try:
            change.setdefault(part, {})[option] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            raise InputError(f"--change {text}: '{value}' is no value of YAML") from error
    return {part: read_options(part, options, f"--change {text}") for part, options in change.items()}
