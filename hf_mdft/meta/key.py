"""What the result of phase 1 depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..adapter import MdftConfig
from ..heads import Head
from ..tasks import Images
from ..trainers import arguments_key
from .arguments import MdftTrainingArguments


VERSION = "meta 2"
DIVISION = ("per_device_train_batch_size", "gradient_accumulation_steps", "images_per_micro_batch")
"""How a step is divided does not change it."""


def meta_key(
    pool: Mapping[str, Any],
    config: MdftConfig,
    heads: Mapping[str, Head],
    images: Mapping[str, Images],
    args: MdftTrainingArguments,
) -> list[Any]:
    """JSON-able; a checkpoint is gone on from only where it is the same.

    Args:
        pool: Reference of the pool.
        config: Config of the adapter.
        heads: The tasks' own heads.
        images: Unlabelled images by task.
        args: Arguments of phase 1.
    """
    adapter = [config.granularity, config.transform, config.init_coefficient]
    tasks = {task: [head.key(), images[task].key] for task, head in heads.items()}
    options = {name: value for name, value in arguments_key(args).items() if name not in DIVISION}
    return [VERSION, dict(pool), adapter, tasks, options]
