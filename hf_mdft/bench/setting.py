"""What the benchmark measures."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..core.errors import InputError
from .random_pool import CLASSES


@dataclass
class Setting:
    """What is measured.

    Args:
        size: Name in `hf_mdft.bench.random_pool.SIZES`.
        experts: K, the number of experts in the pool.
        tasks: Tasks, of `experts`, that have images in a batch.
        images_per_task: Images of each task in a meta-model's batch.
        images_per_micro_batch: Images of one micro-batch of the meta-model; see `MdftTrainingArguments`. The lower
            bound always takes the whole batch at once.
        batch_size: Images in a specialist's batch.
        bf16: Autocast to bfloat16, or fp32.
        turns: Turns of four steps and four of the lower bound.
        images: N, unlabelled images of each task in a whole run.
        classes: Classes of each task in a whole run.
        max_steps: Most steps of either phase in a whole run, of the heads alone twice as many; `None` is the package's
            defaults.
        specialists: Tasks that get a specialist in a whole run; `None` is all.
    """

    size: str = "vit-b-32"
    experts: int = 8
    tasks: int = 8
    images_per_task: int = 16
    images_per_micro_batch: int | None = None
    batch_size: int = 32
    bf16: bool = True
    turns: int = 2
    images: int = 1000
    classes: int = CLASSES
    max_steps: int | None = None
    specialists: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.tasks <= self.experts:
            raise InputError(f"tasks must lie between 1 and the number of experts, {self.experts}; got {self.tasks}")
        for name in ("images_per_task", "images_per_micro_batch", "batch_size", "turns", "max_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        for name in ("images", "classes"):
            if getattr(self, name) < 2:
                raise InputError(f"{name} must be at least 2, got {getattr(self, name)}")

    @property
    def model(self) -> str:
        return f"{self.size}, {'bf16' if self.bf16 else 'fp32'}"

    @property
    def merge(self) -> str:
        micro_batch = f", {self.images_per_micro_batch} at once" if self.images_per_micro_batch else ""
        return f"{self.model}, K = {self.experts}, {self.tasks} x {self.images_per_task} images{micro_batch}"

    @property
    def device(self) -> torch.device:
        """Where it is measured."""
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")

    @property
    def precision(self) -> dict[str, bool]:
        """The trainers' options for it."""
        return {"bf16": self.bf16, "use_cpu": not torch.accelerator.is_available()}
