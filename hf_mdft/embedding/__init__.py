"""Image embeddings: the one room where a model runs without gradients."""

from .embed import embed_images, embed_views
from .expert_outputs import expert_features


__all__ = ["embed_images", "embed_views", "expert_features"]
