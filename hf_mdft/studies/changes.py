"""Rows of an ablation: written as text, `specialize.max_steps=600,specialize.ema_decay=0`, and what they change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import yaml

from ..adapter import MdftConfig
from ..core.errors import InputError
from ..recipes.options import KINDS, read_options
from ..recipes.schema import Recipe


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


def left(
    changes: Mapping[str, Change], recipe: Recipe, progress: Callable[[str], None], idle: Collection[str] = ()
) -> dict[str, Change]:
    """Changes that change something; a line tells of each of the others.

    Args:
        changes: Changes by row.
        recipe: What they change.
        progress: Called with one line for every change that is left out.
        idle: Options of phase 2 that are without effect.
    """
    found = {}
    for name, change in changes.items():
        differing = _differing(recipe, change)
        if not differing:
            progress(f"{name}: the recipe has that already, left out")
        elif differing <= {("specialize", option) for option in idle}:
            progress(f"{name}: without effect on this pool, left out")
        else:
            found[name] = change
    return found


def _differing(recipe: Recipe, change: Change) -> set[tuple[str, str]]:
    """Options that a change gives another value than the recipe, with their parts."""
    found = set()
    for part, options in change.items():
        mine = {field.name: _default(field) for field in dataclasses.fields(KINDS[part])} | getattr(recipe, part)
        if part == "adapter":  # a transform may be its name alone
            mine, options = (vars(MdftConfig(**given)) for given in (getattr(recipe, part), options))
        found |= {(part, name) for name in change[part] if mine[name] != options[name]}
    return found


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
