"""Numbers that arguments may have."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.trainer_utils import HubStrategy, SaveStrategy

from ..core.errors import InputError, suggest
from ..core.typed import check_fields


logger = logging.getLogger(__name__)

NO_PARTS = (
    "fsdp and deepspeed cut the weights into parts, which cannot be combined; leave them off ('shard_task_vectors' "
    "spreads the task vectors of phase 1 over processes)"
)

LARGEST = {int: 2**40, float: 1e9}
"""Absolute values above which an option is a slip: results would not be finite, or never come."""

MOST_IMAGES = 4000
"""Unlabelled images of a task that are used, unless another number is asked for. Each is seen by the expert under many
views, which for many more images would cost more than all of the training."""

NOT_NEGATIVE = (
    "seed",
    "data_seed",
    "weight_decay",
    "max_grad_norm",
    "learning_rate",
    "warmup_steps",
    "save_total_limit",
    "adam_epsilon",
    "head_learning_rate",
    "head_steps",
    "jitter_steps",
    "sharpness_radius",
)
POSITIVE = ("distillation_temperature", "gradient_accumulation_steps")
DECAYS = ("adam_beta1", "adam_beta2")


def check_optimizer(args: TrainingArguments) -> None:
    """Refuse an optimizer that is not here, before anything is trained.

    Raises:
        InputError: Its package is missing, or it is unknown.
    """
    try:
        Trainer.get_optimizer_cls_and_kwargs(args)
    except Exception as error:  # packages that are missing raise whatever they stumble over
        raise InputError(f"optim: {args.optim}: {' '.join(str(error).split())[:200]}") from error


def _from_text(text: str) -> Any:
    """What `accelerator_config` as text holds: JSON, or the name of a file of it, as in `TrainingArguments`."""
    try:
        return json.loads(text if text.startswith("{") else Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"accelerator_config: {text[:100]}: no JSON, nor a file of it ({error})") from error


def check_saving(args: TrainingArguments) -> None:
    """Refuse ways of saving that these trainers do not have.

    Raises:
        InputError: The arguments would choose a model by its labels, keep checkpoints that no run could go on from,
            push during training or cut up the weights.
    """
    if args.load_best_model_at_end or args.save_strategy == SaveStrategy.BEST:
        what = "load_best_model_at_end" if args.load_best_model_at_end else "save_strategy 'best'"
        raise InputError(f"{what} would choose the model by evaluation labels; leave it off")
    if args.save_only_model:
        raise InputError("save_only_model leaves out what a run goes on from; leave it off")
    strategy = HubStrategy(args.hub_strategy)
    if args.push_to_hub and strategy != HubStrategy.END:
        raise InputError(f"hub_strategy '{strategy.value}' pushes while training goes on; use 'end'")
    if args.fsdp or args.deepspeed:
        raise InputError(NO_PARTS)


def check_arguments(args: TrainingArguments) -> None:
    """Refuse what cannot be meant, before anything is made of it.

    Raises:
        InputError: A value has another type, or is out of range; the message names it.
    """
    check_fields(args)
    for field in dataclasses.fields(args):
        value = getattr(args, field.name)
        if type(value) in LARGEST and abs(value) > LARGEST[type(value)]:
            raise InputError(f"{field.name} must lie within {LARGEST[type(value)]:g}, got {str(value)[:20]}")
        if (field.name in NOT_NEGATIVE or field.name.endswith("_weight")) and value is not None and value < 0:
            raise InputError(f"{field.name} must be at least 0, got {value}")
        if field.name in POSITIVE and value <= 0:
            raise InputError(f"{field.name} must be above 0, got {value}")
        if field.name in DECAYS and not 0 <= value < 1:
            raise InputError(f"{field.name} must be at least 0 and below 1, got {value}")
    if args.label_smoothing_factor:
        raise InputError("label_smoothing_factor smooths labels, of which there are none; leave it off")
    if args.auto_find_batch_size:
        raise InputError("auto_find_batch_size would change what a step is half-way; give a batch size that fits")
    given = args.accelerator_config
    if isinstance(given, str):
        given = _from_text(given)
    for name in ("split_batches", "dispatch_batches"):
        if given.get(name) if isinstance(given, dict) else getattr(given, name, None):
            raise InputError(f"accelerator_config: {name} would divide batches anew; leave it off")
    check_saving(args)
    if args.max_steps < -1:
        raise InputError(f"max_steps must be at least -1 (which counts num_train_epochs), got {args.max_steps}")
    epochs = next(field.default for field in dataclasses.fields(args) if field.name == "num_train_epochs")
    if args.max_steps != -1 and args.num_train_epochs != epochs:
        logger.warning("num_train_epochs counts where max_steps is -1 alone; it is %d", args.max_steps)
    if args.seed >= 2**32:
        raise InputError(f"seed must be below 2**32, got {args.seed}")
    if args.per_device_train_batch_size < 1:
        raise InputError(f"per_device_train_batch_size must be at least 1, got {args.per_device_train_batch_size}")
    if args.images is not None and args.images < 2:
        raise InputError(f"images must be at least 2 (or null for all images), got {args.images}")
    known = [*get_available_reporting_integrations(), "none", "all"]
    given = [args.report_to] if isinstance(args.report_to, str) else args.report_to or []
    for name in given:
        if name not in known:
            raise InputError(f"report_to: '{name}' is not installed or unknown: {suggest(str(name), known)}")
