"""What the experts of other tasks make of a task's images: they may be of another task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from tqdm.auto import tqdm

from ...core.cache import key_of, remember, remembered
from ...core.device import fast_bf16
from ...embedding import embed_images
from ...experts import TaskExperts
from ...objectives import image_information
from ...tasks import Images


VERSION = 1
"""Version of what is kept; another one for every change of how it is computed."""

LOOKED_AT, LEAST_LOOKED_AT, LOOKS = 256, 32, 4096
"""Images that each expert of another task looks at: fewer where there are many, so that all of them take no more than
so many forward passes, but not below the least. (Of few images, information comes out lower: the expert is kept less
easily.)"""


@torch.no_grad()
def information_by_others(
    experts: Mapping[str, TaskExperts],
    images: Mapping[str, Images],
    device: torch.device | str,
    *,
    desc: str | None = None,
) -> dict[str, dict[str, float]]:
    """By task, the `information` of each other task's expert on its images, by the expert's name.

    Each expert is loaded once, for all tasks that it is asked about, so that loading costs no square of their number.
    What is found of an expert is kept: a second call with the same tasks runs none.

    Args:
        experts: Experts by task, with their strangers.
        images: Unlabelled images by task.
        device: Device that experts run on.
        desc: Title of a progress bar; the default shows none.
    """
    looked_at = {task: _evenly_spread(images[task], len(own.strangers)) for task, own in experts.items()}
    tasks_of: dict[str, list[str]] = {}
    for task, own in experts.items():
        for expert in own.strangers:
            tasks_of.setdefault(expert, []).append(task)
    found: dict[str, dict[str, float]] = {task: {} for task in experts}
    for expert, tasks in tqdm(tasks_of.items(), desc=desc, leave=False, disable=desc is None):
        values = _information_of(expert, {task: (experts[task], looked_at[task]) for task in tasks}, device)
        for task, value in zip(tasks, values, strict=True):
            found[task][expert] = value
    return found


def _information_of(
    expert: str, about: Mapping[str, tuple[TaskExperts, Images]], device: torch.device | str
) -> list[float]:
    """Information of one expert on the images of each of these tasks."""
    pool, bf16 = next(iter(about.values()))[0].pool, fast_bf16(device)
    given = [[images.key, own.strangers[expert].key()] for own, images in about.values()]
    key = key_of("strangers", VERSION, pool.identity(expert), bf16, given)
    values: list[float] | None = remembered("strangers", key)
    if values is None:
        sets = [images for _, images in about.values()]
        features = embed_images(pool.tower(expert).to(device), pool.architecture, _Joined(sets), bf16=bf16)
        values = [
            information(own.strangers[expert].cpu()(part).softmax(dim=-1))
            for (own, _), part in zip(about.values(), features.split([len(images) for images in sets]), strict=True)
        ]
        remember("strangers", key, values)
    return values


class _Joined:
    """Sets of images one after the other, in batches that do not end where a set does: of many tasks each is small."""

    def __init__(self, sets: Sequence[Images]) -> None:
        self.sets = sets

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    def batches(self, size: int) -> Iterator[torch.Tensor]:
        left = torch.zeros(0)
        for images in self.sets:
            for batch in images.batches(size):
                left = torch.cat([left, batch]) if len(left) else batch
                while len(left) >= size:
                    yield left[:size]
                    left = left[size:]
        if len(left):
            yield left


def _evenly_spread(images: Images, strangers: int) -> Images:
    """Those images that each of so many experts looks at."""
    most = max(LEAST_LOOKED_AT, min(LOOKED_AT, LOOKS // max(1, strangers)))
    return images.subset(torch.linspace(0, len(images) - 1, min(most, len(images))).round().long())


def information(probabilities: torch.Tensor) -> float:
    """Mutual information of image and prediction `(N, C)`, in shares of `ln C`."""
    return image_information(probabilities).mean().item() / math.log(probabilities.shape[-1])
