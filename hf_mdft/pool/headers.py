"""What a model's safetensors files hold, read from their headers alone: on this machine, or on the Hub by range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from huggingface_hub import HfApi
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from ..architectures import Architecture
from ..core.errors import InputError
from ..hub.client import TIMEOUT, ask
from .sources import ModelSource


DTYPES = ("F64", "F32", "F16", "BF16")


class TensorHeader(NamedTuple):
    """Of one tensor: the file that it is in, its type (safetensors' name) and shape."""

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
        header.update(_remote(source, name) if name in missing else _local(source, name))
    return header


def _local(source: ModelSource, name: str) -> Header:
    try:
        with safe_open(source.folder / name, framework="pt") as file:
            parts = {key: file.get_slice(key) for key in file.keys()}
            return {key: TensorHeader(name, part.get_dtype(), tuple(part.get_shape())) for key, part in parts.items()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{source}: {name} is damaged or no safetensors file ({error})") from error


def _remote(source: ModelSource, name: str) -> Header:
    api, where = HfApi(token=source.token), f"{source}@{source.revision[:12]}"
    try:
        found = ask(
            lambda: api.parse_safetensors_file_metadata(source.id, name, revision=source.revision, timeout=TIMEOUT),
            where,
        )
    except InputError:
        raise
    except Exception as error:  # a stranger's file: the parser raises whatever it stumbles over
        raise InputError(f"{where}: {name} is damaged or no safetensors file; take another revision") from error
    return {key: TensorHeader(name, tensor.dtype, tuple(tensor.shape)) for key, tensor in found.tensors.items()}


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
