"""Options of a recipe's parts, checked against the type hints of what they are options of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_type_hints

from ..adapter import MdftConfig
from ..core.errors import InputError, suggest
from ..core.typed import checked
from ..meta import MdftTrainingArguments
from ..specialize import SpecializeArguments
from .renamed import renamed


KINDS = {"adapter": MdftConfig, "meta": MdftTrainingArguments, "specialize": SpecializeArguments}
"""What the options of a part are given to."""

ADAPTER_OPTIONS = ("granularity", "transform", "init_coefficient")
"""The rest of `MdftConfig` is filled in."""


ELSEWHERE = {
    "output_dir": "results go to --output-dir",
    "resume_from_checkpoint": "the same command with the same --output-dir goes on where it stopped",
    "eval_on_start": "training reads no labels; results are measured at the end",
    "eval_strategy": "training reads no labels; results are measured at the end",
}
"""Options of every `Trainer` that a recipe does not have, and what there is instead."""


def read_options(part: str, value: Any, where: str) -> dict[str, Any]:
    """Options of one part of a recipe; what is left out stays out.

    Args:
        part: `"adapter"`, `"meta"` or `"specialize"`.
        value: Keys and values, as YAML holds them; `None` for none.
        where: Names the part in messages.

    Raises:
        InputError: An option is unknown or has another name now, or its value does not fit its type hint.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: expected keys and values, got {type(value).__name__}")
    if (hint := renamed(part, value)) is not None:
        raise InputError(f"{where}: {hint}")
    known = ADAPTER_OPTIONS if part == "adapter" else [field.name for field in dataclasses.fields(KINDS[part])]
    for key in value:
        if key in ELSEWHERE:
            raise InputError(f"{where}: {key} has no place in a recipe: {ELSEWHERE[key]}")
        if key not in known:
            raise InputError(f"{where}: unknown key '{key}': {suggest(str(key), known)}")
    hints = get_type_hints(KINDS[part])
    options = {key: checked(option, hints[key], f"{where}: {key}") for key, option in value.items()}
    if part == "adapter":
        build(part, options, where)
    return options


def check_epochs(part: str, options: Mapping[str, Any], where: str) -> None:
    """Refuse epochs that nobody would count.

    Raises:
        InputError: They are given, and `max_steps` takes precedence, as in `Trainer`.
    """
    epochs = options.get("num_train_epochs", KINDS[part].num_train_epochs)
    if epochs != KINDS[part].num_train_epochs and options.get("max_steps", KINDS[part].max_steps) != -1:
        raise InputError(f"{where}: num_train_epochs counts where max_steps is -1 alone; set max_steps: -1 too")


def build(part: str, options: Mapping[str, Any], where: str) -> Any:
    """The configuration or arguments that a part's options make.

    Raises:
        InputError: They refuse an option or its value.
    """
    if (hint := renamed(part, options)) is not None:
        raise InputError(f"{where}: {hint}")
    try:
        return KINDS[part](**options)
    except Exception as error:  # arguments and what they import raise whatever they stumble over
        reason = " ".join(str(error).split())[:300].removeprefix(f"{part}: ")
        raise InputError(f"{where}: {reason}") from error
