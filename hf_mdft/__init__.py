"""hf_mdft: model-driven, labelled-data-free fine-tuning.

Importing it registers the adapter type `MDFT` with PEFT, now or as soon as PEFT is imported. Everything else is loaded
when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .peft_hook import register_with_peft


if TYPE_CHECKING:
    from .adapter import MdftConfig, MdftLayer, MdftModel
    from .core.errors import InputError
    from .evaluation import Report
    from .heads import Head, load_head
    from .merger import MetaMerger
    from .meta import MdftTrainer, MdftTrainingArguments
    from .pool import ModelPool
    from .recipes.schema import Recipe
    from .specialize import Specialist, SpecializeArguments
    from .tasks import Task


__version__ = "0.1.0"

_HOMES = {
    "Head": "heads",
    "InputError": "core.errors",
    "MdftConfig": "adapter",
    "MdftLayer": "adapter",
    "MdftModel": "adapter",
    "MdftTrainer": "meta",
    "MdftTrainingArguments": "meta",
    "MetaMerger": "merger",
    "ModelPool": "pool",
    "Recipe": "recipes.schema",
    "Report": "evaluation",
    "Specialist": "specialize",
    "SpecializeArguments": "specialize",
    "Task": "tasks",
    "load_head": "heads",
}

__all__ = [
    "Head",
    "InputError",
    "MdftConfig",
    "MdftLayer",
    "MdftModel",
    "MdftTrainer",
    "MdftTrainingArguments",
    "MetaMerger",
    "ModelPool",
    "Recipe",
    "Report",
    "Specialist",
    "SpecializeArguments",
    "Task",
    "load_head",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


register_with_peft()
