"""Published methods as fragments of a recipe, made of this package's own parts."""

from __future__ import annotations

from typing import Any

from ..core.errors import InputError, suggest


LEARNED = {
    "learning_rate": 1e-3,
    "adam_epsilon": 1e-8,
    "lr_scheduler_type": "constant",
    "max_steps": 500,
    "images_per_task": 16,
    "entropy_weight": 0.0,
    "normalize_entropy": True,
    "distillation_weight": 0.0,
    "distillation_distance": "kl",
    "distillation_temperature": 2.0,
    "prior_weight": 0.0,
    "diversity_weight": 0.0,
    "terms": {},
    "filter": "none",
    "distillation_views": False,
    "agreement_rule": False,
    "train_heads": False,
    "train_projection": False,
    "head_steps": 0,
    "coefficient_range": None,
    "sharpness_radius": 0.0,
}
"""What learned presets have in common: every option of the objective, so that none of the recipe's leaks into them."""

STATIC = {"max_steps": 0}

TIES = {"name": "ties", "density": 0.2, "scope": "model", "disjoint_mean": False}


def _static(transform: Any = "identity", init_coefficient: float | None = None) -> dict[str, Any]:
    return {"adapter": _adapter(transform, init_coefficient), "meta": STATIC, "specialize": {"rounds": 0}}


def _learned(transform: Any = "identity", init_coefficient: float | None = 0.3, **meta: Any) -> dict[str, Any]:
    adapter = _adapter(transform, init_coefficient)
    return {"adapter": adapter, "meta": {**LEARNED, **meta}, "specialize": {"rounds": 0}}


def _adapter(transform: Any, init_coefficient: float | None) -> dict[str, Any]:
    spec = {"name": transform} if isinstance(transform, str) else transform
    return {"granularity": "tensor", "transform": spec, "init_coefficient": init_coefficient}


PRESETS: dict[str, dict[str, Any]] = {
    # Ilharco et al. 2023, https://huggingface.co/papers/2212.04089
    "weight_average": _static(),
    "task_arithmetic": _static(init_coefficient=0.3),
    # Yadav et al. 2023, https://huggingface.co/papers/2306.01708
    "ties": _static(TIES, 0.3),
    # Yu et al. 2024, https://huggingface.co/papers/2311.03099
    "dare": _static({"name": "dare", "density": 0.5}, 0.3),
    # Wang et al. 2025, https://huggingface.co/papers/2410.17146
    "lines": _static("lines", 0.3),
    # Gargiulo et al. 2025, https://huggingface.co/papers/2412.00081
    "tsv_m": _static("tsv"),
    # Marczak et al. 2025, https://huggingface.co/papers/2502.04959
    "iso_c": _static("iso_c"),
    "iso_cts": _static("iso_cts"),
    # Yang et al. 2024, https://huggingface.co/papers/2310.02575: entropy, layer-wise
    "adamerging": _learned(entropy_weight=1.0, normalize_entropy=False, coefficient_range=[0.0, 1.0]),
    "adamerging++": _learned(TIES, entropy_weight=1.0, normalize_entropy=False, coefficient_range=[0.0, 1.0]),
    # Jung et al. 2024, https://huggingface.co/papers/2412.19098: pseudo-labels, rule, trained heads
    "symerge": _learned(
        distillation_weight=1.0, distillation_distance="hard", agreement_rule=True, train_heads=True,
        learning_rate=1e-2, head_learning_rate=1e-2, images_per_task=32, coefficient_range=[0.0, 1.0],
    ),
    "symerge_lambda_only": _learned(
        distillation_weight=1.0, distillation_distance="hard", agreement_rule=True, images_per_task=32,
        coefficient_range=[0.0, 1.0],
    ),
    # https://huggingface.co/papers/2512.21288: KL to the experts at T = 2, sharpness-aware
    "samerging": _learned(distillation_weight=1.0, init_coefficient=0.0, sharpness_radius=0.07),
    # The method's own submission: filtered entropy and the aggregation over all tasks (here the KL to the experts)
    "paper": _learned(entropy_weight=1.0, distillation_weight=1.0, filter="eata", init_coefficient=None),
}  # fmt: skip
"""By name: `adapter`, `meta` and `specialize` of a recipe. None makes specialists."""


def preset(name: str) -> dict[str, Any]:
    """The fragment called `name`.

    Raises:
        InputError: No such preset; the nearest name is suggested.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset '{name}': {suggest(name, PRESETS)}")
    return PRESETS[name]
