"""CLIP models of the open_clip library as `CLIPModel`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from ..core.errors import InputError


CONFIG = "open_clip_config.json"

VISION = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio", "patch_dropout"}
TEXT = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
MODEL = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale"}
"""What of a config is understood. Anything else may change what the model computes, so it is refused by name."""

VISION_DEFAULTS = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224}
TEXT_DEFAULTS = {
    "context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0,
}  # fmt: skip
"""What open_clip takes where a config is silent."""

HARMLESS: dict[str, Any] = {
    "pool_type": ("tok", "argmax"), "final_ln_after_pool": (False,), "attentional_pool": (False,),
    "global_average_pool": (False,), "no_ln_pre": (False,), "ls_init_value": (None,), "output_tokens": (False,),
    "proj_bias": (False,), "no_causal_mask": (False,), "embed_cls": (False,), "pad_id": (0,), "proj_type": ("linear",),
    "init_logit_bias": (None,), "hf_tokenizer_name": (None, ""), "timm_model_name": (None,), "pos_embed_type":
    ("learnable",), "qk_norm": (False,), "input_patchnorm": (False,), "text_mask": ("first",),
}  # fmt: skip
"""Settings that change nothing at these values."""

BLOCK = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}  # fmt: skip

OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def read_open_clip(folder: Path, where: str) -> dict[str, Any]:
    """An `open_clip_config.json` that `CLIPModel` can follow: `model_cfg` and `preprocess_cfg`.

    Raises:
        InputError: It is damaged, or has something that `CLIPModel` does not compute; the setting is named.
    """
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        model = found["model_cfg"]
        vision, text = model["vision_cfg"], model["text_cfg"]
        vision, text = {**VISION_DEFAULTS, **vision}, {**TEXT_DEFAULTS, **text}
        found["model_cfg"] = {**model, "embed_dim": model["embed_dim"], "vision_cfg": vision, "text_cfg": text}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where}: {CONFIG} is damaged or no config of a CLIP model") from error
    if not isinstance(vision.get("layers"), int) or not isinstance(vision["image_size"], int):
        raise InputError(f"{where}: the image tower is no ViT with square images; only those can be converted")
    for part, known, name in ((model, MODEL, "model_cfg"), (vision, VISION, "vision_cfg"), (text, TEXT, "text_cfg")):
        for key, value in part.items():
            if key not in known and value not in HARMLESS.get(key, ()):
                raise InputError(f"{where}: {name} has '{key}: {value}', which CLIPModel does not compute")
    return found


def clip_config(model: Mapping[str, Any]) -> CLIPConfig:
    """The same model's config in transformers."""
    vision, text, act = model["vision_cfg"], model["text_cfg"], "quick_gelu" if model.get("quick_gelu") else "gelu"
    vocabulary = text.get("vocab_size", 49408)
    return CLIPConfig(
        architectures=["CLIPModel"],
        projection_dim=model["embed_dim"],
        vision_config={
            "hidden_size": vision["width"],
            "intermediate_size": int(vision["width"] * vision.get("mlp_ratio", 4.0)),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision.get("head_width", 64),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "hidden_act": act,
        },
        text_config={
            "hidden_size": text["width"],
            "intermediate_size": int(text["width"] * text.get("mlp_ratio", 4.0)),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text.get("context_length", 77),
            "vocab_size": vocabulary,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,  # open_clip reads the embedding at the largest token
            "hidden_act": act,
        },
    )


def clip_state(tensors: Mapping[str, torch.Tensor], where: str) -> dict[str, torch.Tensor]:
    """The tensors under the names of `CLIPModel`.

    Raises:
        InputError: A tensor has no place there.
    """
    state = {}
    for key, tensor in tensors.items():
        name = key.removeprefix("text.") if not key.startswith("visual.") else key
        image = name.startswith("visual.")
        single = VISION_NAMES if image else TEXT_NAMES
        tower, name = ("vision_model", name.removeprefix("visual.")) if image else ("text_model", name)
        if name.startswith("transformer.resblocks."):
            number, part = name.removeprefix("transformer.resblocks.").split(".", 1)
            block = f"{tower}.encoder.layers.{number}"
            if part.startswith("attn.in_proj_"):
                kind = part.removeprefix("attn.in_proj_")
                for letter, piece in zip("qkv", tensor.chunk(3), strict=True):
                    state[f"{block}.self_attn.{letter}_proj.{kind}"] = piece
                continue
            stem, _, kind = part.rpartition(".")
            if stem in BLOCK:
                state[f"{block}.{BLOCK[stem]}.{kind}"] = tensor
                continue
        elif name in single:
            target, turned = single[name]
            state[target] = tensor.T if turned else tensor
            continue
        elif name == "attn_mask":
            continue
        raise InputError(f"{where}: tensor '{key}' has no place in CLIPModel")
    return {name: tensor.float().contiguous() for name, tensor in state.items()}


VISION_NAMES = {
    "class_embedding": ("vision_model.embeddings.class_embedding", False),
    "positional_embedding": ("vision_model.embeddings.position_embedding.weight", False),
    "conv1.weight": ("vision_model.embeddings.patch_embedding.weight", False),
    "ln_pre.weight": ("vision_model.pre_layrnorm.weight", False),
    "ln_pre.bias": ("vision_model.pre_layrnorm.bias", False),
    "ln_post.weight": ("vision_model.post_layernorm.weight", False),
    "ln_post.bias": ("vision_model.post_layernorm.bias", False),
    "proj": ("visual_projection.weight", True),
}
TEXT_NAMES = {
    "token_embedding.weight": ("text_model.embeddings.token_embedding.weight", False),
    "positional_embedding": ("text_model.embeddings.position_embedding.weight", False),
    "ln_final.weight": ("text_model.final_layer_norm.weight", False),
    "ln_final.bias": ("text_model.final_layer_norm.bias", False),
    "text_projection": ("text_projection.weight", True),
    "text_projection.weight": ("text_projection.weight", False),
    "logit_scale": ("logit_scale", False),
}
"""Name in `CLIPModel` of every tensor outside the blocks, and whether it is transposed there."""


def clip_model(found: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], where: str) -> CLIPModel:
    """The model.

    Raises:
        InputError: A tensor is missing, left over or of another shape.
    """
    try:
        model = CLIPModel(clip_config(found["model_cfg"]))
    except Exception as error:  # a stranger's numbers: whatever they break
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise InputError(f"{where}: {CONFIG} describes no model ({reason[:120]})") from error
    state, wanted = clip_state(tensors, where), model.state_dict()
    for name, tensor in wanted.items():
        if name.endswith("position_ids"):
            state[name] = tensor
        elif name not in state:
            raise InputError(f"{where}: the tensor for '{name}' is missing; take another revision")
        elif state[name].shape != tensor.shape:
            raise InputError(
                f"{where}: the tensor for '{name}' has shape {tuple(state[name].shape)}, {CONFIG} says "
                f"{tuple(tensor.shape)}"
            )
    left = sorted(state.keys() - wanted.keys())
    if left:
        raise InputError(f"{where}: the tensor for '{left[0]}' has no place in a model as {CONFIG} describes it")
    model.load_state_dict(state)
    return model.eval()


def image_processor(found: Mapping[str, Any], where: str) -> CLIPImageProcessor:
    """The preprocessing that the config states.

    Raises:
        InputError: It resizes in a way that `CLIPImageProcessor` does not.
    """
    given, side = found.get("preprocess_cfg") or {}, found["model_cfg"]["vision_cfg"]["image_size"]
    mode, resample = given.get("resize_mode", "shortest"), given.get("interpolation", "bicubic")
    if mode not in ("shortest", "squash") or resample not in ("bicubic", "bilinear"):
        raise InputError(
            f"{where}: preprocessing with resize_mode '{mode}' and interpolation '{resample}' is not known"
        )
    whole = {"height": side, "width": side}
    return CLIPImageProcessor(
        size={"shortest_edge": side} if mode == "shortest" else whole,
        do_center_crop=mode == "shortest",
        crop_size=whole,
        resample=3 if resample == "bicubic" else 2,
        image_mean=list(given.get("mean") or OPENAI_MEAN),
        image_std=list(given.get("std") or OPENAI_STD),
    )
