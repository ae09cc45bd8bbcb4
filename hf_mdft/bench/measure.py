"""The measurements of `hf-mdft bench`."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import get_peft_model
from torch.nn import functional as F

from ..adapter import MdftConfig
from ..core.errors import InputError
from ..meta import MdftTrainer, MdftTrainingArguments
from ..pool import ModelPool
from ..specialize import SpecializeArguments, StudentTrainer, Teacher
from ..trainers import show_progress
from .fusion_bench import fusion_bench_step
from .interleaved import Interleaved, training_steps
from .memory import PeakMemory
from .random_pool import CLASSES, config_of, random_head, random_images, random_pool
from .table import Cost


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
    """

    size: str = "vit-b-32"
    experts: int = 8
    tasks: int = 8
    images_per_task: int = 16
    images_per_micro_batch: int | None = None
    batch_size: int = 64
    bf16: bool = True
    turns: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.tasks <= self.experts:
            raise InputError(f"tasks must lie between 1 and the number of experts, {self.experts}; got {self.tasks}")
        for name in ("images_per_task", "images_per_micro_batch", "batch_size", "turns"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")

    @property
    def model(self) -> str:
        return f"{self.size}, {'bf16' if self.bf16 else 'fp32'}"

    @property
    def merge(self) -> str:
        micro_batch = f", {self.images_per_micro_batch} at once" if self.images_per_micro_batch else ""
        return f"{self.model}, K = {self.experts}, {self.tasks} x {self.images_per_task} images{micro_batch}"


def measure(setting: Setting, what: str) -> Cost:
    """One of `MEASURES`."""
    with tempfile.TemporaryDirectory() as folder:
        return MEASURES[what](setting, Path(folder))


def measure_apart(setting: Setting, what: str, prepare: Callable[[], None]) -> Cost:
    """As `measure`, in a process of its own, so that no measurement finds the memory that another one left.

    Args:
        prepare: Function that sets that process up; called first.

    Raises:
        InputError: The process was killed.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), prepare) as process:
        try:
            return process.submit(measure, setting, what).result()
        except BrokenProcessPool as error:
            raise InputError(f"measuring '{what}' was killed: too little memory? Try a smaller batch") from error


def _meta(setting: Setting, folder: Path) -> Cost:
    memory = PeakMemory().start()
    pool = random_pool(setting.size, setting.experts)
    tasks = list(pool.experts)[: setting.tasks]
    args = MdftTrainingArguments(
        output_dir=str(folder),
        max_steps=training_steps(setting.turns),
        images_per_task=setting.images_per_task,
        images_per_micro_batch=setting.images_per_micro_batch,
        head_steps=0,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        **_precision(setting),
    )
    trainer = MdftTrainer(
        model=get_peft_model(pool.tower(), MdftConfig(pool=pool.reference())),
        args=args,
        train_dataset=random_images(pool, tasks, 2 * setting.images_per_task),
        heads={task: random_head(pool, number) for number, task in enumerate(tasks)},
        pool=pool,
    )
    batch = _noise(setting, setting.tasks * setting.images_per_task, args.device)
    timer = Interleaved(lambda: _pass_over(pool, batch, setting.bf16, args.device), memory)
    trainer.add_callback(timer)
    trainer.train()
    return _cost(f"meta-model step, {setting.merge}", timer)


def _fusion_bench(setting: Setting, folder: Path) -> Cost:
    memory = PeakMemory().start()
    pool = random_pool(setting.size, setting.experts)
    device = _device()
    batch = _noise(setting, setting.tasks * setting.images_per_task, device)
    step = fusion_bench_step(pool, list(pool.experts)[: setting.tasks], batch, setting.bf16)
    timer = Interleaved(lambda: _pass_over(pool, batch, setting.bf16, device), memory)
    for number in range(1, training_steps(setting.turns) + 1):
        step()
        timer.on_step_end(None, _Step(number), None)
    return _cost(f"FusionBench's LayerWiseMergedModel, {setting.merge}", timer)


@dataclass
class _Step:
    global_step: int


def _specialist(setting: Setting, folder: Path) -> Cost:
    memory = PeakMemory().start()
    pool = random_pool(setting.size, 1)
    (task,) = pool.experts
    images = random_images(pool, [task], 2 * setting.batch_size)[task]
    head = random_head(pool, 0)
    args = SpecializeArguments(
        output_dir=str(folder),
        max_steps=training_steps(setting.turns),
        per_device_train_batch_size=setting.batch_size,
        learning_rate=1e-5,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        **_precision(setting),
    )
    targets = torch.full((len(images), CLASSES), 1 / CLASSES)
    features = torch.randn(len(images), pool.tower().config.hidden_size)
    trainer = StudentTrainer(
        pool.tower(task),
        args,
        architecture=pool.architecture,
        head=head,
        images=images,
        teacher=Teacher(targets, torch.ones(len(images)), features),
    )
    batch = _noise(setting, setting.batch_size, args.device)
    show_progress(trainer, "Specialist")
    timer = Interleaved(lambda: _fine_tuning(pool, batch, setting.bf16, args.device, head), memory)
    trainer.add_callback(timer)
    trainer.train()
    return _cost(f"specialist step, {setting.model}, {setting.batch_size} images", timer)


MEASURES: dict[str, Callable[[Setting, Path], Cost]] = {
    "meta": _meta,
    "specialists": _specialist,
    "baseline": _fusion_bench,
}


def _device() -> torch.device:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def _precision(setting: Setting) -> dict[str, bool]:
    return {"bf16": setting.bf16, "use_cpu": not torch.accelerator.is_available()}


def _noise(setting: Setting, count: int, device: torch.device) -> torch.Tensor:
    side = config_of(setting.size).image_size
    return torch.randn(count, 3, side, side).to(device)


def _pass_over(pool: ModelPool, batch: torch.Tensor, bf16: bool, device: torch.device) -> Callable[[], None]:
    """One forward and one backward pass, for the gradients of all weights."""
    tower = pool.tower(next(iter(pool.experts))).to(device).train()

    def step() -> None:
        tower.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            features = pool.architecture.features(tower(pixel_values=batch)).float()
        features.square().mean().backward()

    return step


def _fine_tuning(
    pool: ModelPool, batch: torch.Tensor, bf16: bool, device: torch.device, head: torch.nn.Module
) -> Callable[[], None]:
    """One step of plain fine-tuning: cross-entropy, clipped gradient, AdamW."""
    tower = pool.tower(next(iter(pool.experts))).to(device).train()
    head = head.to(device)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=1e-5, weight_decay=0.0, fused=True)
    labels = torch.arange(len(batch), device=device) % CLASSES

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = head(pool.architecture.features(tower(pixel_values=batch)).float())
            loss = F.cross_entropy(logits, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _cost(name: str, timer: Interleaved) -> Cost:
    return Cost(name, statistics.median(timer.lower_bounds), statistics.median(timer.steps), timer.memory.stop())
