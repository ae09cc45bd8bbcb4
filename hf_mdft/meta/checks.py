"""What the trainer of phase 1 is given, refused where it cannot be meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft import PeftModel

from ..adapter import MdftConfig, MdftLayer
from ..core.errors import InputError
from ..core.typed import expect
from ..heads import Head, check_finite
from ..tasks import LabelledImages
from .arguments import MdftTrainingArguments


NOT_ASKED = ("compute_loss_func", "compute_metrics", "data_collator", "model_init")
"""Arguments of `Trainer` that this one has its own of."""


LACKS_HEADS = "optimizers: the one given lacks the heads; set train_heads=False, or give optim instead"


def check_division(args: MdftTrainingArguments, where: str = "meta") -> None:
    """Whether the images of a task can be shared out among processes and accumulation steps.

    Args:
        args: Options of phase 1.
        where: Names them in messages.

    Raises:
        InputError: They cannot.
    """
    parts = args.world_size * args.gradient_accumulation_steps
    if args.images_per_task % parts:
        raise InputError(
            f"{where}: images_per_task={args.images_per_task} must be a multiple of processes x accumulation steps = "
            f"{parts}"
        )


def check_given(
    model: Any, args: Any, train_dataset: Any, heads: Any, eval_dataset: Any, others: Mapping[str, Any]
) -> None:
    """Refuse what nothing could be learned from.

    Args:
        model, args, train_dataset, heads, eval_dataset: As `MdftTrainer` takes them.
        others: Its further arguments.

    Raises:
        InputError: One is of another kind, or the model has no coefficients that a training would change.
    """
    expect(args, MdftTrainingArguments, "args")
    for name in NOT_ASKED:
        if others.get(name) is not None:
            raise InputError(f"{name}: MdftTrainer has its own; leave it out")
    for name, given in (("train_dataset", train_dataset), ("heads", heads), ("eval_dataset", eval_dataset or {})):
        expect(given, Mapping, f"{name} (by task)")
    for task, head in heads.items():
        check_finite(expect(head, Head, f"heads['{task}']"), f"heads['{task}']")
    for task, labelled in (eval_dataset or {}).items():
        expect(labelled, LabelledImages, f"eval_dataset['{task}']")
    if not train_dataset:
        raise InputError("train_dataset holds no task")
    missing = [task for task in train_dataset if task not in heads]
    if missing:
        raise InputError(f"task '{missing[0]}' has images but no head")
    _check_model(model)
    optimizer, _ = others.get("optimizers") or (None, None)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]} if optimizer else set()
    if optimizer and not all(id(p) in held for p in model.parameters() if p.requires_grad):
        raise InputError("optimizers: the one given lacks coefficients of the model, so they would not be trained")


def _check_model(model: Any) -> None:
    config = model.active_peft_config if isinstance(model, PeftModel) else None
    if not isinstance(config, MdftConfig):
        raise InputError("model: expected a tower with an MDFT adapter, get_peft_model(tower, MdftConfig(pool=...))")
    if config.tower:
        raise InputError(f"model: its adapter is on the '{config.tower}' of a larger model; put it on that alone")
    layers = [module for module in model.modules() if isinstance(module, MdftLayer)]
    if not any(layer.combines for layer in layers):
        raise InputError("model: its adapter is merged or disabled, so nothing of it would be trained")
    if not any(p.requires_grad for layer in layers for p in layer.mdft_lambda.values()):
        raise InputError(
            "model: its coefficients are frozen, so nothing of it would be trained; load it with "
            "PeftModel.from_pretrained(..., is_trainable=True)"
        )
