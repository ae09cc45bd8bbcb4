"""A saved adapter: which pool it refers to, its config and its tensors, none of them taken on trust."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from ..adapter import MdftConfig
from ..core.errors import InputError
from ..core.json_files import read_json
from ..core.reference import PoolReference
from ..core.regular import check_whole
from ..pool import ModelPool
from .layout import ADAPTER_CONFIG, ADAPTER_WEIGHTS


def read_adapter_config(folder: Path) -> MdftConfig:
    """The config of a saved adapter.

    Raises:
        InputError: It is damaged.
    """
    try:
        return MdftConfig.from_pretrained(folder)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: {ADAPTER_CONFIG} is damaged ({reason}); make it again") from error


def load_adapter(folder: Path, pool: ModelPool) -> PeftModel:
    """A pool's tower with a saved adapter.

    Args:
        folder: Folder of the adapter.
        pool: Its pool.

    Raises:
        InputError: A tensor is missing (peft would leave the start values), of another shape or kind, or not finite.
    """
    where = f"{folder}: {ADAPTER_WEIGHTS}"
    read_adapter_config(folder)
    try:
        found = load_file(folder / ADAPTER_WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{where} is damaged ({error}); make it again") from error
    for name, tensor in found.items():
        if not tensor.is_floating_point():
            raise InputError(f"{where}: '{name}' is stored as {tensor.dtype}; make it again")
        if not tensor.float().isfinite().all():
            raise InputError(f"{where}: '{name}' holds NaN or infinity; make it again")
    try:
        model = PeftModel.from_pretrained(pool.tower(), folder)
    except InputError as error:
        raise InputError(f"{folder}: {ADAPTER_CONFIG}: {error}") from None
    except Exception as error:  # values or shapes that peft cannot use
        raise InputError(
            f"{folder}: {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS} fit no tower of its pool; make it again"
        ) from error
    missing = get_peft_model_state_dict(model).keys() - found.keys()
    if missing:
        raise InputError(f"{where} lacks '{min(missing)}'; make it again")
    return model


def read_adapter(folder: Path) -> PoolReference:
    """The pool of a saved adapter, whose files are there and whole.

    Raises:
        InputError: They are not, or it is another kind of adapter.
    """
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: no {name}; give a meta-model that MetaMerger has written")
    try:
        check_whole(folder / ADAPTER_WEIGHTS)
        config = read_json(folder / ADAPTER_CONFIG, str(folder))
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt"):
            pass
        if not isinstance(config, Mapping) or config.get("peft_type") != "MDFT":
            raise InputError(f"{folder}: {ADAPTER_CONFIG} is of no adapter of hf_mdft; make it again")
        return PoolReference.from_dict(config["pool"], "pool")
    except Exception as error:  # a stranger's file: the parser raises whatever it stumbles over
        if isinstance(error, InputError) and str(error).startswith(str(folder)):
            raise
        raise InputError(
            f"{folder}: the adapter is damaged ({type(error).__name__}: {error}); make it again"
        ) from error
