"""Headers of safetensors files on the Hub, read by range: a few kilobytes of each."""

from __future__ import annotations

from huggingface_hub import HfApi

from ..core.errors import InputError
from ..core.reference import ModelReference
from .client import TIMEOUT, call_hub


def remote_header(
    model: ModelReference, name: str, token: str | bool | None = None
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type (safetensors' name) and shape of every tensor in a file of a repo.

    Raises:
        InputError: The Hub refuses, or it is no safetensors file.
    """
    api = HfApi(token=token)
    try:
        found = call_hub(
            lambda: api.parse_safetensors_file_metadata(model.id, name, revision=model.revision, timeout=TIMEOUT),
            model.where,
        )
    except InputError:
        raise
    except Exception as error:  # a stranger's file: the parser raises whatever it stumbles over
        raise InputError(f"{model.where}: {name} is damaged or no safetensors file; take another revision") from error
    return {key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in found.tensors.items()}
