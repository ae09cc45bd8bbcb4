"""The architecture of a model or a pool, from configs."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from ..core.errors import InputError
from ..core.json_files import read_json
from ..core.regular import SMALL, check_regular
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
    check_regular(folder / "config.json", f"{where}: config.json", SMALL)
    content = read_json(folder / "config.json", where)
    check_numbers(content, where)
    check_needs(content, where)
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{where}: its config needs another package ({reason})") from error
    except Exception as error:  # an untrusted file: its parser may raise anything
        reason = " ".join(str(error).split()).replace("Validation error for field ", "")
        reason = reason.replace("<class 'NoneType'>", "null").replace("NoneType", "null")[:300]
        raise InputError(f"{where}: config.json cannot be read ({reason or type(error).__name__})") from error


ATTENTION = (None, "eager", "sdpa")
"""Kinds of attention that need no further package and can be trained on any device."""


def check_needs(config: Mapping[str, Any], where: str) -> None:
    """Refuse settings that plain transformers cannot load without further packages.

    Args:
        config: What `config.json` holds.
        where: Name of the model, for the message.

    Raises:
        InputError: It holds one.
    """
    for part in (config, *(value for value in config.values() if isinstance(value, Mapping))):
        if part.get("quantization_config") is not None:
            raise InputError(f"{where}: quantized (quantization_config); take a revision in fp32, fp16 or bf16")
        for name in ("attn_implementation", "_attn_implementation"):
            given = part.get(name)
            for kind in given.values() if isinstance(given, Mapping) else [given]:
                if kind not in ATTENTION:
                    raise InputError(
                        f"{where}: config.json asks for {name} '{kind}', which cannot be trained with everywhere; "
                        "take that line out (of somebody else's repo: in a copy of it)"
                    )


LAYERS = re.compile(r"(.*layers|.*depths?|.*blocks)")

MOST_LAYERS, LARGEST = 1000, 10**6
"""Layers, and any other number, that no config has more of, but for numbers of tokens, and classes."""


def check_numbers(config: Any, where: str) -> None:
    """Refuse numbers that no model has, before a model of such a size is built.

    Args:
        config: What `config.json` holds.
        where: Name of the model, for the message.

    Raises:
        InputError: It holds one, or is nothing that a config can be.
    """
    if not isinstance(config, Mapping):
        raise InputError(f"{where}: config.json holds no keys and values; add the model's own")
    known = _keys_of(str(config.get("model_type")))
    for key, value in config.items():
        if known is not None and key not in known and not str(key).endswith(("config", "config_dict")):
            continue  # a note, which builds nothing
        if isinstance(value, Mapping) and key not in ("id2label", "label2id"):
            check_numbers(value, f"{where}: {key}")
        most = MOST_LAYERS if LAYERS.fullmatch(str(key)) else LARGEST
        numbers = [
            number for number in (value if isinstance(value, list) else [value]) if type(number) in (int, float)
        ]
        if "token" not in str(key) and any(not abs(number) <= most for number in numbers):
            raise InputError(f"{where}: config.json: {key} is {value!r:.40}, which no model has; correct it")


@cache
def _keys_of(model_type: str) -> frozenset[str] | None:
    """Keys that a kind of config knows; `None` where they are not known."""
    try:
        kind = CONFIG_MAPPING[model_type]
        parameters = inspect.signature(kind).parameters
        return frozenset(kind().to_dict().keys() | kind.attribute_map.keys() | parameters.keys())
    except Exception:  # no such kind, or one without defaults
        return None


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
