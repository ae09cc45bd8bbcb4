"""Options under their former names: one line that gives the present name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


OPTIONS: dict[str, dict[str, str]] = {
    "adapter": {},
    "meta": {
        "anchor_weight": "distillation_weight",
        "anchor_distance": "distillation_distance",
        "anchor_temperature": "distillation_temperature",
        "anchor_views": "distillation_views",
        "images_per_pass": "images_per_micro_batch",
    },
    "specialize": {
        "shots": "images",
        "pull_weight": "l2_sp_weight",
        "information_weight": "infomax_weight",
        "others_weight": "ensemble_weight",
        "discriminant_weight": "lda_weight",
        "self_training": "refreshes",
    },
}
"""By part of a recipe: present name by former name."""

TRANSFORMS = {"quantise": "quantize"}


def renamed(part: str, options: Mapping[str, Any]) -> str | None:
    """What to write instead of the first former name among a part's options; `None` where there is none."""
    for key in options:
        if key in OPTIONS[part]:
            return f"'{key}' is now called '{OPTIONS[part][key]}'"
    for name in _transforms(options.get("transform")):
        if name in TRANSFORMS:
            return f"transform '{name}' is now called '{TRANSFORMS[name]}'"
    return None


def _transforms(spec: Any) -> Iterator[str]:
    """Names of a transform and of the ones within it."""
    if isinstance(spec, str):
        yield spec
    if isinstance(spec, Mapping):
        yield str(spec.get("name"))
        yield from _transforms(spec.get("of"))
