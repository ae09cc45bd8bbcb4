"""Batches with images of every task."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch.utils.data import Dataset

from ..core.seeds import mixed_seed
from ..tasks import Images
from ..trainers.flat import others


class MixedTasks(Dataset):
    """A schedule of training images: item i is a pure function of the seed and i.

    Each step takes `images_per_task` images of every task, in a new order for each turn through the task, and
    interleaves them so that any even part of the step holds every task equally. A run is therefore the same whether a
    step is done at once, in several accumulated parts, or by several processes, and a resumed run goes on where it
    stopped.

    Args:
        images: Unlabelled images by task.
        images_per_task: Images of every task in one step.
        steps: Number of steps of the whole run.
        seed: Seed of the order.
        held_out: Rows of each task's images that are not taken; the default takes all.
    """

    def __init__(
        self,
        images: Mapping[str, Images],
        images_per_task: int,
        steps: int,
        seed: int,
        held_out: Mapping[str, torch.Tensor] = MappingProxyType({}),
    ) -> None:
        self.images = list(images.values())
        nothing = torch.zeros(0, dtype=torch.long)
        self.rows = [others(len(own), held_out.get(task, nothing)) for task, own in images.items()]
        self.images_per_task = images_per_task
        self.steps = steps
        self.seed = seed
        self._order = functools.lru_cache(maxsize=2 * len(self.images))(self._shuffled)

    def __len__(self) -> int:
        return self.steps * self.images_per_task * len(self.images)

    def _shuffled(self, task: int, turn: int) -> list[int]:
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, task, turn))
        return self.rows[task][torch.randperm(len(self.rows[task]), generator=generator)].tolist()

    def locate(self, item: int) -> tuple[int, int]:
        """Task and image index of an item."""
        slot, task = divmod(item, len(self.images))
        turn, position = divmod(slot, len(self.rows[task]))
        return task, self._order(task, turn)[position]

    def __getitems__(self, items: list[int]) -> dict[str, Any]:
        located = [self.locate(item) for item in items]
        index = torch.tensor([row for _, row in located])
        pixels = torch.empty((len(items), *self.images[0].shape), dtype=torch.uint8)
        for task, images in enumerate(self.images):
            own = [place for place, (of, _) in enumerate(located) if of == task]
            if own:
                pixels[own] = images.pixels(index[own])
        return {"pixels": pixels, "task": [task for task, _ in located], "index": index}

    def __getitem__(self, item: int) -> dict[str, Any]:
        return {key: value[0] for key, value in self.__getitems__([item]).items()}


def as_batch(batch: dict[str, Any]) -> dict[str, Any]:
    """Collator: `MixedTasks` makes whole batches already."""
    return batch
