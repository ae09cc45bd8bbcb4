"""The architecture of a model or a pool, from configs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig

from ..core.errors import InputError
from .base import ARCHITECTURES, Architecture
from .output_layers import classifier_of
from .unsupported import REASONS


def read_config(folder: Path, where: str) -> PreTrainedConfig:
    """The model config in a folder; code from the folder is never run.

    Args:
        folder: Folder of the model.
        where: Name of the model, for the message.

    Raises:
        InputError: No readable `config.json`.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"{where}: no config.json; give a folder or repo that save_pretrained has written")
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{where}: its config needs another package ({reason})") from error
    except Exception as error:  # an untrusted file: its parser may raise anything
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(f"{where}: config.json cannot be read ({reason})") from error


def architecture_of(config: PreTrainedConfig, where: str) -> Architecture:
    """The registered architecture for a model's config: of those for its type, the one with heads as the model has
    (a classifier, or none), and of these the one for the fewest types.

    Args:
        config: Config of the model.
        where: Name of the model, for the message.

    Raises:
        InputError: None is registered for this model type.
    """
    parts = [ARCHITECTURES.get(name) for name in ARCHITECTURES.names()]
    parts = [part for part in parts if config.model_type in part.model_types]
    if not parts:
        reason = REASONS.get(config.model_type, "it is no image classifier of transformers, CLIP or SigLIP")
        raise InputError(f"{where}: model type '{config.model_type}' cannot be pooled: {reason}")
    heads = [part for part in parts if part.own_heads == (classifier_of(config) is not None)]
    return min(heads or parts, key=lambda part: len(part.model_types))()


def pool_architecture(
    base: PreTrainedConfig, where: str, experts: Mapping[str, PreTrainedConfig]
) -> tuple[Architecture, PreTrainedConfig]:
    """Architecture of a pool, and the config of its towers. The experts decide: with a classifier each, CLIP experts
    are image classifiers; else they share the base's text tower.

    Args:
        base: Config of the base.
        where: Name of the base, for the message.
        experts: Configs of the experts, by their names for messages.

    Raises:
        InputError: Experts of several kinds, or none is registered for them.
    """
    fitting = architecture_of(base, where).model_types
    kinds = {name: classifier_of(config) for name, config in experts.items() if config.model_type in fitting}
    classes = list(dict.fromkeys(kinds.values()))
    if len(classes) > 1:
        first, other = next(iter(kinds)), next(name for name in kinds if kinds[name] == classes[1])
        raise InputError(
            f"{other}: {_kind(classes[1])}, but {first} is {_kind(classes[0])}; one pool takes experts of one kind"
        )
    kind = next(iter(classes), None) or classifier_of(base)
    config = copy.deepcopy(base)
    config.architectures = [kind] if kind else getattr(base, "architectures", None)
    found = architecture_of(config, where)
    if kind and not found.own_heads:
        raise InputError(
            f"{next(iter(kinds))}: {_kind(kind)}, which the base {where} ('{base.model_type}') does not fit"
        )
    return found, config


def _kind(name: str | None) -> str:
    return name or "a model without a classifier"
