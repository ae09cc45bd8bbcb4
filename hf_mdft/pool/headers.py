"""What a model's safetensors files hold, read from their headers alone: on this machine, or on the Hub by range."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig, PreTrainedModel

from ..architectures import Architecture
from ..architectures.keys import canonical_names
from ..architectures.output_layers import classifier_of, new_classifier, output_layers
from ..core.errors import InputError
from ..hub.headers import remote_header
from .source import ModelSource


DTYPES = ("F64", "F32", "F16", "BF16")


WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")
"""Prefixes of DataParallel, DistributedDataParallel and torch.compile, which are left out of names."""


class TensorHeader(NamedTuple):
    """Where one tensor lies: its file, the key there, its type (safetensors' name) and shape."""

    file: str
    key: str
    dtype: str
    shape: tuple[int, ...]


Header = Mapping[str, TensorHeader]


def read_header(source: ModelSource) -> Header:
    """Names, types and shapes of all tensors in a model's files; where they are not here yet, a few kilobytes of each
    are read from the Hub.

    Raises:
        InputError: A file cannot be read or is no safetensors file.
    """
    missing, header = source.missing(), {}
    for name in source.weights:
        if name in missing:
            found = remote_header(source.reference, name, source.token)
        else:
            found = _local(source, name)
        for key, what in found.items():
            plain = WRAPPERS.sub("", key)
            if plain in header and (plain != key or header[plain].key != plain):
                raise InputError(f"{source}: tensor '{plain}' with and without a wrapper's prefix; save it anew")
            header[plain] = TensorHeader(name, key, *what)
    return header


def _local(source: ModelSource, name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    try:
        with safe_open(source.folder / name, framework="pt") as file:
            parts = {key: file.get_slice(key) for key in file.keys()}
            return {key: (part.get_dtype(), tuple(part.get_shape())) for key, part in parts.items()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{source}: {name} is damaged or no safetensors file ({error})") from error


def check_header(
    source: ModelSource, header: Header, architecture: Architecture, model: PreTrainedModel, *, is_base: bool = False
) -> None:
    """Whether a model's files hold a tower, or a complete model, and no other layers of it.

    Args:
        source: The model, for the message.
        header: Header of the model's files.
        architecture: Architecture of the pool.
        model: A model of the right shapes (the meta device will do).
        is_base: Whether it is the base, for the message.

    Raises:
        InputError: A tensor is missing, has another shape, is stored in a type that is no plain number, or is of a
            layer that the config does not have.
    """
    keys = architecture.canonical_names(model, list(header))
    advice, of = "an expert must be fine-tuned from the pool's base", " of the base"
    if is_base:
        advice, of = "transformers would make it up; take another base or revision", ""
    saved = model.state_dict()
    statistics = ((name, buffer) for name, buffer in model.named_buffers() if name in saved)
    for name, wanted in (*model.named_parameters(), *statistics):
        if not wanted.is_floating_point():
            continue  # counts of steps, which older files lack
        if name not in keys:
            raise InputError(f"{source}: tensor '{name}'{of} is missing; {advice}")
        found = header[keys[name]]
        if found.shape != tuple(wanted.shape):
            theirs = "config.json says" if is_base else "the base has"
            raise InputError(
                f"{source}: tensor '{name}' has shape {found.shape}, {theirs} {tuple(wanted.shape)}; "
                + ("take another revision" if is_base else advice)
            )
        if found.dtype not in DTYPES:
            raise InputError(
                f"{source}: tensor '{name}' is stored as {found.dtype}; take a revision in fp32, fp16 or bf16"
            )
    surplus = architecture.surplus(model, list(header))
    if surplus:
        says = "config.json has" if is_base else "the base has"
        raise InputError(
            f"{source}: tensor '{surplus[0]}' is of a layer more than {says}; "
            + ("correct the config" if is_base else advice)
        )


def check_classifier(source: ModelSource, header: Header, config: PreTrainedConfig) -> None:
    """Whether an expert's output layers, where its files have them, are what its config says.

    Args:
        source: The expert, for the message.
        header: Header of its files.
        config: Its config.

    Raises:
        InputError: One has another shape, or is stored in a type that is no plain number.
    """
    if classifier_of(config) is None:
        return
    with torch.device("meta"):
        model = new_classifier(config)
    keys, state = canonical_names(model, list(header)), model.state_dict()
    for name in (f"{layer}.{part}" for layer in output_layers(config) for part in ("weight", "bias")):
        if name not in keys:
            continue  # a head may be given
        found, wanted = header[keys[name]], tuple(state[name].shape)
        if found.shape != wanted:
            raise InputError(
                f"{source}: '{name}' has shape {found.shape}, for the classes of its config it would be {wanted}; "
                "correct config.json"
            )
        if found.dtype not in DTYPES:
            raise InputError(f"{source}: '{name}' is stored as {found.dtype}; take a revision in fp32, fp16 or bf16")
