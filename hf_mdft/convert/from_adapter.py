"""PEFT adapters (LoRA and the like) merged into their base."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from transformers import PreTrainedModel

from ..architectures import read_config
from ..architectures.output_layers import adapted_config
from ..core.errors import InputError
from ..core.reference import ModelReference
from ..pool.source import ModelSource


PREFIX = "base_model.model."
"""So begin keys of an adapter's tensors."""


def adapted_model(folder: Path, where: str, token: str | bool | None) -> tuple[PeftModel, ModelSource]:
    """An adapter on its own base, in fp32, and that base.

    PEFT itself puts it there, so that ranks and alphas by pattern, rsLoRA, DoRA and the others are what they are
    where the adapter was trained.

    Args:
        folder: Folder of the adapter; its weights are here.
        where: Names the adapter in messages.
        token: As in transformers.

    Raises:
        InputError: Adapter or base cannot be read, the base is none of transformers, a tensor of either is missing or
            left over, or the kind of adapter cannot be merged.
    """
    try:
        config = PeftConfig.from_pretrained(folder)
        tensors = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    except Exception as error:  # a stranger's file: the parser raises whatever it stumbles over
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise InputError(
            f"{where}: {CONFIG_NAME} or {SAFETENSORS_WEIGHTS_NAME} cannot be read ({reason[:120]})"
        ) from error
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{where}: tensor '{key}' holds NaN or infinity; take another revision")
    if not config.base_model_name_or_path:
        raise InputError(f"{where}: {CONFIG_NAME} names no base (base_model_name_or_path); name it there")
    base = ModelSource.resolve(ModelReference.parse(config.base_model_name_or_path, config.revision), token)
    base.fetch()
    model = _base_model(config, base, tensors, folder, where)
    try:
        adapted = PeftModel.from_pretrained(model, folder)
        own = get_peft_model_state_dict(adapted)
    except Exception as error:  # whatever peft stumbles over
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise InputError(f"{where}: peft cannot put it on {base} ({reason[:160]})") from error
    odd = sorted(own.keys() ^ tensors.keys()) or [
        k for k in sorted(own) if not torch.equal(own[k], tensors[k].to(own[k]))
    ]
    if odd:
        raise InputError(
            f"{where}: '{odd[0]}' of the adapter does not fit {base}; it was trained on another version of the model "
            "or of its library"
        )
    if not hasattr(adapted, "merge_and_unload") or config.is_prompt_learning:
        raise InputError(f"{where}: a {config.peft_type.value} adapter cannot be merged into its base")
    return adapted.eval(), base


def _base_model(
    config: PeftConfig, base: ModelSource, tensors: dict[str, torch.Tensor], folder: Path, where: str
) -> PreTrainedModel:
    """The model that the adapter was trained on: the base with a classifier of the adapter's size."""
    options = read_config(base.folder, str(base))
    name = (config.auto_mapping or {}).get("base_model_class") or next(iter(options.architectures or ()), "")
    model_class = getattr(transformers, name, None)
    if not (isinstance(model_class, type) and issubclass(model_class, PreTrainedModel)):
        raise InputError(f"{where}: its base class '{name}' is none of transformers")
    rows = {key.removeprefix(PREFIX): len(tensor) for key, tensor in tensors.items() if tensor.ndim}
    own = read_config(folder, where) if (folder / "config.json").is_file() else None
    options = adapted_config(options, name, rows, own, where)
    model, info = model_class.from_pretrained(
        base.folder, config=options, output_loading_info=True, ignore_mismatched_sizes=True, dtype=torch.float32
    )
    other = {key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]}
    missing = sorted(key for key in info["missing_keys"] | other if f"{PREFIX}{key}" not in tensors)
    if missing:
        raise InputError(f"{where}: neither it nor its base {base} has tensor '{missing[0]}' of {name}")
    return model
