"""What a model's safetensors files hold, read from their headers alone: on this machine, or on the Hub by range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from ..architectures import Architecture
from ..core.errors import InputError
from ..hub.headers import remote_header
from .source import ModelSource


DTYPES = ("F64", "F32", "F16", "BF16")


class TensorHeader(NamedTuple):
    """Where one tensor lies: its file, its type (safetensors' name) and shape."""

    file: str
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
            header |= {key: TensorHeader(name, dtype, shape) for key, (dtype, shape) in found.items()}
        else:
            header |= _local(source, name)
    return header


def _local(source: ModelSource, name: str) -> Header:
    try:
        with safe_open(source.folder / name, framework="pt") as file:
            parts = {key: file.get_slice(key) for key in file.keys()}
            return {key: TensorHeader(name, part.get_dtype(), tuple(part.get_shape())) for key, part in parts.items()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{source}: {name} is damaged or no safetensors file ({error})") from error


def check_header(source: ModelSource, header: Header, architecture: Architecture, tower: PreTrainedModel) -> None:
    """Whether a model's files hold the tower of a pool.

    Args:
        source: The model, for the message.
        header: Header of the model's files.
        architecture: Architecture of the pool.
        tower: A tower of the right shapes (the meta device will do).

    Raises:
        InputError: A tensor is missing, has another shape, or is stored in a type that is no plain number.
    """
    keys = architecture.canonical_names(tower, list(header))
    advice = "an expert must be fine-tuned from the pool's base"
    for name, wanted in tower.named_parameters():
        if name not in keys:
            raise InputError(f"{source}: tensor '{name}' of the base is missing; {advice}")
        found = header[keys[name]]
        if found.shape != tuple(wanted.shape):
            raise InputError(
                f"{source}: tensor '{name}' has shape {found.shape}, the base has {tuple(wanted.shape)}; {advice}"
            )
        if found.dtype not in DTYPES:
            raise InputError(
                f"{source}: tensor '{name}' is stored as {found.dtype}; take a revision in fp32, fp16 or bf16"
            )
