"""The tensors of a checkpoint in any usual format, read without running code from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..core.errors import InputError
from ..core.regular import check_whole
from ..pool.headers import WRAPPERS
from ..pool.layout import PICKLED, SAVED_STATE, VARIANT
from ..pool.weight_files import INDEX_FILE, shards


TRANSFORMERS = ("model.safetensors", INDEX_FILE, "pytorch_model.bin", "pytorch_model.bin.index.json")
OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
"""Where each library looks for weights, safetensors before what must be unpickled."""

NESTED = ("state_dict", "model_state_dict", "model", "module", "state_dict_ema")
"""Keys under which training scripts keep the weights beside other things; the first that there is."""


def weight_files(folder: Path, names: Iterable[str], places: Iterable[str], where: str) -> list[str]:
    """Names of the files that hold a model's weights.

    Args:
        folder: Holds the index of sharded weights.
        names: Names of all of the model's files.
        places: Where they are looked for first.
        where: Names the model in messages.

    Raises:
        InputError: There are none, several that could be meant, or a shard is missing.
    """
    names = {name for name in names if "/" not in name}
    own = [name for name in places if name in names]
    if not own:
        own = sorted(name for name in names if VARIANT.fullmatch(name))
        own = own or sorted(n for n in names if n.endswith(".safetensors") and not n.startswith("adapter_"))
        own = own or sorted(n for n in names if PICKLED.fullmatch(n) and not SAVED_STATE.fullmatch(n))
        if len(own) > 1:
            raise InputError(f"{where}: {' and '.join(own[:3])} could be meant; leave one of them in a folder")
    if not own:
        raise InputError(f"{where}: no weights in .safetensors, .bin or .pt; give another folder or repo")
    return shards(folder, own[0], names, where) if own[0].endswith(".index.json") else own[:1]


def read_tensors(files: Iterable[Path], where: str) -> tuple[dict[str, torch.Tensor], bool]:
    """All tensors of a model's files by name, without the prefixes of wrappers, and whether they stand there like that
    (where not, plain transformers does not find them, and makes up what it does not find).

    Pickled files are read with `torch.load(weights_only=True)`, which refuses everything but tensors and plain
    containers.

    Raises:
        InputError: A file is damaged, holds something that could run code, or no weights.
    """
    found: dict[str, torch.Tensor] = {}
    plain = True
    for file in files:
        content = _read(file, where)
        state = _state(content)
        if not state:
            raise InputError(f"{where}: {file.name} holds no state dict of tensors; save the model's state_dict()")
        found, plain = found | state, plain and len(state) == len(content)
    names = {WRAPPERS.sub("", name): name for name in found}
    if len(names) != len(found):
        raise InputError(f"{where}: the same tensor with and without a wrapper's prefix; save it anew")
    return {name: found[key] for name, key in names.items()}, plain and all(n == k for n, k in names.items())


def _read(file: Path, where: str) -> Any:
    check_whole(file, f"{where}: {file.name}")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise InputError(f"{where}: {file.name} is damaged or no safetensors file ({error})") from error
    except Exception as error:  # unpickling a stranger's file: it raises whatever it stumbles over
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise InputError(
                f"{where}: {file.name} holds more than tensors and could run code, so it is not read; save the "
                "model's state_dict() alone"
            ) from error
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise InputError(f"{where}: {file.name} cannot be read ({reason[:120]})") from error


def _state(content: Any) -> dict[str, torch.Tensor] | None:
    if not isinstance(content, Mapping):
        return None
    for key in NESTED:
        if isinstance(content.get(key), Mapping):
            return _state(content[key])  # beside it: the optimizer's state, the epoch and so on
    tensors = {str(k): v.detach() for k, v in content.items() if isinstance(v, torch.Tensor)}
    return tensors if len(tensors) == len(content) else None
