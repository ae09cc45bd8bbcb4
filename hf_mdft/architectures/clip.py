"""CLIP vision towers."""

from __future__ import annotations

from transformers import CLIPModel, CLIPVisionModel

from .base import ARCHITECTURES
from .contrastive import Contrastive


@ARCHITECTURES.register("clip")
class ClipVision(Contrastive):
    """`CLIPVisionModel`, alone or inside `CLIPModel` / `CLIPVisionModelWithProjection` (CLIP, Radford et al. 2021,
    https://huggingface.co/papers/2103.00020)."""

    model_types = ("clip", "clip_vision_model")
    model_class = CLIPModel
    tower_class = CLIPVisionModel
