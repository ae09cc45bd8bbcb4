"""A tiny config for every kind of image classifier that transformers has."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from hf_mdft.architectures.output_layers import with_classes


SMALL = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2}
PATCHES = {**SMALL, "image_size": 32, "patch_size": 8}
TEXT = {**SMALL, "vocab_size": 99, "max_position_embeddings": 16}
STAGES = {"image_size": 32, "depths": [1, 2], "num_heads": [1, 2], "embed_dim": 8, "window_size": 2}
TOWERS = {"text_config": TEXT, "vision_config": PATCHES, "projection_dim": 8}

OPTIONS: dict[str, dict[str, Any]] = {
    "beit": PATCHES,
    "bit": {"embedding_size": 8, "hidden_sizes": [32, 64], "depths": [1, 1], "num_groups": 4},
    "clip": TOWERS,
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2},
    "convnextv2": {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2},
    "cvt": {"embed_dim": [8, 16, 16], "num_heads": [1, 2, 2], "depth": [1, 2, 3]},
    "data2vec-vision": PATCHES,
    "deit": PATCHES,
    "dinat": {},
    "dinov2": PATCHES,
    "dinov2_with_registers": {**PATCHES, "num_register_tokens": 2},
    "donut-swin": STAGES,
    "efficientnet": {
        "image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320,
        "in_channels": [32, 16], "out_channels": [16, 24], "kernel_sizes": [3, 3], "strides": [1, 2],
        "num_block_repeats": [1, 2], "expand_ratios": [1, 6], "depthwise_padding": [],
    },
    "focalnet": {
        "image_size": 32, "embed_dim": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "focal_levels": [2, 2],
        "focal_windows": [3, 3],
    },
    "hgnet_v2": {
        "embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1], "stem_channels": [3, 8, 8],
        "stage_in_channels": [8, 16], "stage_mid_channels": [8, 8], "stage_out_channels": [16, 32],
        "stage_num_blocks": [1, 1], "stage_downsample": [False, True], "stage_light_block": [False, True],
        "stage_kernel_size": [3, 5], "stage_numb_of_layers": [2, 2],
    },
    "hiera": {
        "image_size": [64, 64], "embed_dim": 8, "depths": [1, 1, 1], "num_heads": [1, 2, 4], "num_query_pool": 2,
        "query_stride": [2, 2], "masked_unit_size": [4, 4], "masked_unit_attention": [True, False, False],
        "embed_dim_multiplier": 2.0,
    },
    "ijepa": PATCHES,
    "imagegpt": {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 32, "n_positions": 64},
    "levit": {
        "image_size": 64, "hidden_sizes": [16, 16, 32], "num_attention_heads": [1, 2, 2], "depths": [1, 1, 1],
        "key_dim": [8, 8, 8], "attention_ratio": [2, 2, 2], "mlp_ratio": [2, 2, 2],
    },
    "metaclip_2": TOWERS,
    "mobilenet_v1": {"depth_multiplier": 0.25},
    "mobilenet_v2": {"depth_multiplier": 0.25},
    "mobilevit": {
        "image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 16, 16, 32],
        "num_attention_heads": 2, "last_hidden_dim": 32,
    },
    "mobilevitv2": {"image_size": 64, "width_multiplier": 0.25, "n_attn_blocks": [1, 1, 1]},
    "perceiver": {
        "image_size": 32, "num_latents": 4, "d_latents": 16, "num_blocks": 1, "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2, "num_cross_attention_heads": 1,
    },
    "poolformer": {
        "hidden_sizes": [8, 16], "depths": [1, 2], "num_encoder_blocks": 2, "patch_sizes": [7, 3], "strides": [4, 2],
        "padding": [2, 1], "mlp_ratio": 2.0,
    },
    "pp_lcnet": {"scale": 0.25},
    "pvt": {
        "image_size": 64, "num_encoder_blocks": 2, "depths": [1, 2], "hidden_sizes": [8, 16], "patch_sizes": [4, 2],
        "strides": [4, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2], "sequence_reduction_ratios": [2, 1],
    },
    "pvt_v2": {
        "image_size": 64, "num_encoder_blocks": 2, "depths": [1, 2], "hidden_sizes": [8, 16], "patch_sizes": [7, 3],
        "strides": [4, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2], "sr_ratios": [2, 1],
    },
    "regnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "groups_width": 8},
    "resnet": {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 2]},
    "segformer": {
        "num_encoder_blocks": 2, "depths": [1, 2], "hidden_sizes": [8, 16], "patch_sizes": [7, 3], "strides": [4, 2],
        "num_attention_heads": [1, 2], "mlp_ratios": [2, 2], "sr_ratios": [2, 1],
    },
    "shieldgemma2": {},
    "siglip": {"text_config": TEXT, "vision_config": PATCHES},
    "siglip2": {"text_config": TEXT, "vision_config": {**SMALL, "num_patches": 16, "patch_size": 8}},
    "swiftformer": {"image_size": 64, "depths": [1, 1, 1, 1], "embed_dims": [8, 8, 16, 16]},
    "swin": STAGES,
    "swinv2": STAGES,
    "textnet": {
        "image_size": 64, "stem_out_channels": 8, "hidden_sizes": [8, 8, 8, 8, 8],
        **{
            f"conv_layer_{kind}": [[value, value]] * 4
            for kind, value in (("kernel_sizes", [3, 3]), ("strides", 1))
        },
    },
    "timm_wrapper": {"architecture": "resnet10t"},
    "vit": PATCHES,
    "vit_msn": PATCHES,
}  # fmt: skip
"""By model type: options that make it tiny."""

NAMES = ["dark", "light", "even"]


def tiny_config(model_type: str, names: list[str] = NAMES, **options: Any) -> PreTrainedConfig:
    """Config of a tiny classifier of three classes."""
    return with_classes(AutoConfig.for_model(model_type, **{**OPTIONS[model_type], **options}), names)
