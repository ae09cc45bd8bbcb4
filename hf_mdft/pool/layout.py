"""What a folder or repo is that holds no safetensors weights where transformers looks for them."""

from __future__ import annotations

import re
from collections.abc import Collection

from peft.utils import CONFIG_NAME as PEFT_CONFIG


PICKLED = re.compile(r".*\.(bin|pt|pth|ckpt)")
VARIANT = re.compile(r"model\.(?!safetensors)[\w-]+\.safetensors(\.index\.json)?")
CHECKPOINT = re.compile(r"checkpoint-(\d+)(/.*)?")

SAVED_STATE = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state)(_\d+)?\.(bin|pt|pth)")
"""Files that a Trainer writes beside weights."""


def advice(names: Collection[str], given: str) -> str:
    """What it seems to be and what to do, in one line.

    Args:
        names: Names of all of its files (and folders, of a folder), relative to it.
        given: As the user names it, for commands in the message.
    """
    names = set(names)
    convert = f"'hf-mdft pool convert {given} FOLDER' makes a folder of safetensors of it"
    checkpoints = [int(found[1]) for name in names if (found := CHECKPOINT.fullmatch(name))]
    variants = sorted(name for name in names if VARIANT.fullmatch(name))
    pickled = sorted(name for name in names if PICKLED.fullmatch(name) and not SAVED_STATE.fullmatch(name))
    if PEFT_CONFIG in names:
        return f"a PEFT adapter, not a model; {convert}, merged into its base"
    if "open_clip_config.json" in names and not names & {"pytorch_model.bin", "pytorch_model.bin.index.json"}:
        return f"an open_clip model; {convert}, as CLIPModel"
    if variants:
        return f"weights only as a variant ({variants[0]}); {convert}"
    if checkpoints and not pickled:
        return f"a Trainer's output folder; give the folder of a checkpoint, as checkpoint-{max(checkpoints)}"
    if "config.json" in names and pickled:
        return f"no safetensors, only {pickled[0]}, which is not read as it is; {convert}"
    if pickled:
        return (
            f"no config.json, only {pickled[0]}: weights alone are no model; add the config.json that goes with them"
        )
    other = sorted(name for name in names if name.endswith((".safetensors", ".msgpack", ".h5", ".onnx", ".gguf")))
    if other:
        return f"no model.safetensors, only {other[0]}; save it with save_pretrained of transformers"
    return "no model.safetensors; give a folder or repo that save_pretrained has written"
