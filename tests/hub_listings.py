"""Files of repos of the Hub that the docs name or people start from, as far as they are known (the Hub changes)."""

from __future__ import annotations

from dataclasses import dataclass


EVERYWHERE = (".gitattributes", "README.md")
TOKENIZER = (
    "merges.txt", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
)  # fmt: skip
TRANSFORMERS = ("config.json", "model.safetensors", "preprocessor_config.json", "pytorch_model.bin")
OLD_CLIP = (
    *TOKENIZER, "config.json", "flax_model.msgpack", "preprocessor_config.json", "pytorch_model.bin", "tf_model.h5",
)  # fmt: skip
ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "training_args.bin")


@dataclass(frozen=True)
class Listing:
    """A repo.

    Args:
        kind: What its model is.
        files: Names of its files on `main`.
        request: Files of the conversion bot's open pull request.
        weights: Names of the weight files that are taken; none where it is refused.
        said: Part of the line that it is refused with.
    """

    kind: str
    files: tuple[str, ...]
    request: tuple[str, ...] = ()
    weights: tuple[str, ...] = ("model.safetensors",)
    said: str = ""


LISTINGS = {
    "openai/clip-vit-base-patch32": Listing("clip", OLD_CLIP, ("model.safetensors",)),
    "openai/clip-vit-base-patch16": Listing("clip", OLD_CLIP, ("model.safetensors",)),
    "openai/clip-vit-large-patch14": Listing("clip", (*OLD_CLIP, "model.safetensors")),
    "tanganke/clip-vit-base-patch32_mnist": Listing("clip tower", ("config.json", "model.safetensors")),
    "tanganke/clip-vit-base-patch16_mnist_lora-16": Listing("clip lora", ADAPTER, weights=ADAPTER[1:2]),
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": Listing(
        "clip",
        (
            *TOKENIZER, *TRANSFORMERS, "open_clip_config.json", "open_clip_model.safetensors",
            "open_clip_pytorch_model.bin",
        ),
    ),
    "apple/MobileCLIP-S1-OpenCLIP": Listing(
        "open_clip",
        (*TOKENIZER, "open_clip_config.json", "open_clip_pytorch_model.bin"),
        weights=(),
        said="an open_clip model; 'hf-mdft pool convert apple/MobileCLIP-S1-OpenCLIP FOLDER'",
    ),
    "google/siglip-base-patch16-224": Listing(
        "siglip",
        (
            "config.json", "model.safetensors", "preprocessor_config.json", "special_tokens_map.json", "spiece.model",
            "tokenizer.json", "tokenizer_config.json",
        ),
    ),
    "google/vit-base-patch16-224-in21k": Listing("vit", (*TRANSFORMERS, "flax_model.msgpack", "tf_model.h5")),
    "facebook/deit-tiny-patch16-224": Listing("deit", (*TRANSFORMERS, "tf_model.h5")),
    "microsoft/swin-tiny-patch4-window7-224": Listing("swin", (*TRANSFORMERS, "tf_model.h5")),
    "facebook/dinov2-base": Listing("dinov2", TRANSFORMERS),
    "namrahrehman/dinov2-base-finetuned-lora-rank8": Listing(
        "dinov2 lora", (*ADAPTER, "preprocessor_config.json"), weights=ADAPTER[1:2]
    ),
    "facebook/convnext-tiny-224": Listing("convnext", (*TRANSFORMERS, "tf_model.h5")),
    "microsoft/resnet-50": Listing("resnet", (*TRANSFORMERS, "flax_model.msgpack", "tf_model.h5")),
    "nateraw/vit-base-beans": Listing(
        "vit",
        (
            *TRANSFORMERS, "all_results.json", "eval_results.json", "train_results.json", "trainer_state.json",
            "training_args.bin",
        ),
    ),
    "timm/resnet50.a1_in1k": Listing("timm", ("config.json", "model.safetensors", "pytorch_model.bin")),
}  # fmt: skip
"""By id."""
