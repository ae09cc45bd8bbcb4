"""The arguments of a run as options of a recipe."""

from __future__ import annotations

import dataclasses
from typing import Any

from transformers import TrainingArguments

from .resume import IRRELEVANT


RELEVANT = (
    "num_train_epochs", "gradient_accumulation_steps", "optim", "optim_args", "adam_beta1", "adam_beta2",
    "weight_decay", "max_grad_norm", "warmup_steps", "lr_scheduler_kwargs", "bf16", "fp16", "data_seed",
    "neftune_noise_alpha", "seed",
)  # fmt: skip
"""Options of every `Trainer` that its result depends on."""


def options_of(args: TrainingArguments) -> dict[str, Any]:
    """What a recipe needs to give the same result: this package's own options, and what differs from defaults."""
    values = args.to_dict()
    left_out = {*IRRELEVANT, "remove_unused_columns"} - {
        "rounds"
    }  # earlier rounds do not depend on it; the result does
    if "images_per_task" in values:
        left_out.add("per_device_train_batch_size")  # follows from it
    if values["max_steps"] != -1:
        left_out.add("num_train_epochs")  # nobody counts them
    own = [name for name in type(args).__annotations__ if name not in left_out]
    defaults = {field.name: field.default for field in dataclasses.fields(args)}
    others = [name for name in RELEVANT if name in values.keys() - {*own, *left_out}]
    changed = [name for name in others if values[name] != defaults[name]]
    return {name: values[name] for name in [*own, *changed]}
