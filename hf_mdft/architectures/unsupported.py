"""Image classifiers of transformers that cannot be pooled, and why."""

from __future__ import annotations


_NO_CLASSIFIER = "transformers has no image classifier of this type; timm's models of it can be pooled"

REASONS = {
    "dinov3_convnext": _NO_CLASSIFIER,
    "dinov3_vit": _NO_CLASSIFIER,
    "imagegpt": "it reads clusters of colors as tokens, not pixels",
    "shieldgemma2": "it is a language model that reads instructions beside an image",
    "siglip2": "NaFlex models read patches with masks instead of images of one size; those of SigLIP 2 for one size, "
    "such as google/siglip2-base-patch16-224, are of type 'siglip' and can be pooled",
}
"""By model type."""
