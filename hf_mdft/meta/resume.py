"""What the checkpoints of phase 1 depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from ..adapter import MdftConfig
from ..experts import TaskExperts
from ..heads import Head
from ..pool import ModelPool
from ..tasks import Images
from ..trainers import arguments_key
from ..transforms import TRANSFORMS
from .arguments import MdftTrainingArguments
from .micro_batches import micro_batch_of


VERSION = 10
"""Version of what a checkpoint holds and of how a step is made."""

DIVISION = ("per_device_train_batch_size", "images_per_micro_batch", "shard_task_vectors")
"""Options that say how a step is divided, which does not change it (but for BatchNorm, which measures each part)."""


def resume_key(
    pool: ModelPool,
    config: MdftConfig,
    heads: Mapping[str, Head],
    images: Mapping[str, Images],
    args: MdftTrainingArguments,
    experts: Mapping[str, TaskExperts] = MappingProxyType({}),
) -> list[Any]:
    """Everything that the result of phase 1 depends on, JSON-able.

    Args:
        pool: Base and experts.
        config: Options of the adapter.
        heads: Heads that the tasks come with, by task.
        images: Unlabelled images by task.
        args: Options of phase 1.
        experts: Experts and teachers, by task.
    """
    adapter = [config.granularity, TRANSFORMS.build(config.transform).key(), config.init_coefficient]
    tasks = {task: [heads[task].key(), images[task].key] for task in images}
    taught = {task: key for task, found in experts.items() if (key := replace(found, related=()).key())}
    options = arguments_key(args)
    for name in DIVISION:
        options.pop(name)
    if pool.keeps_statistics:
        shape = next(iter(images.values())).shape
        options["division"] = [micro_batch_of(pool, shape, args), args.world_size]
    return ["meta", VERSION, pool.reference(), adapter, tasks, options, *([taught] if taught else [])]
