"""MetaCLIP 2 vision towers; those of the first MetaCLIP are CLIP's."""

from __future__ import annotations

from transformers import MetaClip2Model, MetaClip2VisionModel, PreTrainedConfig

from .base import ARCHITECTURES
from .contrastive import Contrastive


@ARCHITECTURES.register("metaclip_2")
class MetaClip2Vision(Contrastive):
    """`MetaClip2VisionModel`, alone or inside `MetaClip2Model` (MetaCLIP 2, Chuang et al. 2025,
    https://huggingface.co/papers/2507.22062)."""

    model_types = ("metaclip_2", "metaclip_2_vision_model")
    model_class = MetaClip2Model
    tower_class = MetaClip2VisionModel

    def tower_loader(self, config: PreTrainedConfig) -> str:
        return "MetaClip2VisionModel"  # AutoModel does not know it
