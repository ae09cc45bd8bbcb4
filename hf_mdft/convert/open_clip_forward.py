"""What an open_clip model computes, from its own tensors: the reference that a conversion is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as F


Tensors = Mapping[str, torch.Tensor]


@torch.no_grad()
def open_clip_outputs(
    model: Mapping[str, Any], tensors: Tensors, pixel_values: torch.Tensor, tokens: torch.Tensor
) -> list[torch.Tensor]:
    """Embeddings `(batch, embed_dim)` of unit length of images `(batch, 3, side, side)` and texts `(batch, length)`.

    Args:
        model: `model_cfg` of the model's config.
        tensors: Its tensors by open_clip's names.
        pixel_values: Preprocessed images.
        tokens: Token ids; the largest of each text ends it.
    """
    image = _image_embeddings(model, tensors, pixel_values)
    return [F.normalize(image, dim=-1), F.normalize(_text_embeddings(model, tensors, tokens), dim=-1)]


def _image_embeddings(model: Mapping[str, Any], tensors: Tensors, pixel_values: torch.Tensor) -> torch.Tensor:
    own, cfg = _Tower(tensors, "visual.", model), model["vision_cfg"]
    patches = F.conv2d(pixel_values, own["conv1.weight"], stride=cfg["patch_size"]).flatten(2).transpose(1, 2)
    first = own["class_embedding"].expand(len(patches), 1, -1)
    tokens = own.norm("ln_pre", torch.cat([first, patches], dim=1) + own["positional_embedding"])
    tokens = own.blocks(tokens, cfg["layers"], cfg["width"] // cfg.get("head_width", 64))
    return own.norm("ln_post", tokens[:, 0]) @ own["proj"]


def _text_embeddings(model: Mapping[str, Any], tensors: Tensors, tokens: torch.Tensor) -> torch.Tensor:
    prefix = "text." if "text.token_embedding.weight" in tensors else ""
    own, cfg = _Tower(tensors, prefix, model), model["text_cfg"]
    hidden = own["token_embedding.weight"][tokens] + own["positional_embedding"][: tokens.shape[1]]
    hidden = own.norm("ln_final", own.blocks(hidden, cfg["layers"], cfg["heads"], causal=True))
    pooled = hidden[torch.arange(len(tokens)), tokens.argmax(dim=-1)]
    linear = f"{prefix}text_projection.weight" in tensors
    return pooled @ (own["text_projection.weight"].T if linear else own["text_projection"])


class _Tower:
    def __init__(self, tensors: Tensors, prefix: str, model: Mapping[str, Any]) -> None:
        self.tensors, self.prefix = tensors, prefix
        self.act = (lambda x: x * torch.sigmoid(1.702 * x)) if model.get("quick_gelu") else F.gelu

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[f"{self.prefix}{name}"].float()

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], self[f"{name}.weight"], self[f"{name}.bias"], 1e-5)

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self[f"{name}.weight"], self[f"{name}.bias"])

    def blocks(self, x: torch.Tensor, layers: int, heads: int, causal: bool = False) -> torch.Tensor:
        for number in range(layers):
            at = f"transformer.resblocks.{number}"
            seen = self.norm(f"{at}.ln_1", x)
            joint = F.linear(seen, self[f"{at}.attn.in_proj_weight"], self[f"{at}.attn.in_proj_bias"])
            q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in joint.chunk(3, dim=-1))
            found = F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)
            x = x + self.linear(f"{at}.attn.out_proj", found)
            x = x + self.linear(
                f"{at}.mlp.c_proj", self.act(self.linear(f"{at}.mlp.c_fc", self.norm(f"{at}.ln_2", x)))
            )
        return x
