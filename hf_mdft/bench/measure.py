"""The measurements of `hf-mdft bench`."""

from __future__ import annotations

import multiprocessing
import platform
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from peft import get_peft_model
from torch.nn import functional as F

from ..adapter import MdftConfig
from ..errors import InputError
from ..pool import ModelPool
from ..specialize import SpecializeArguments, StudentTrainer, Teacher
from ..tables import markdown_table
from ..training import MdftTrainer, MdftTrainingArguments, show_progress
from .interleaved import Interleaved, training_steps
from .memory import PeakMemory
from .peer import peer_step
from .random_pool import CLASSES, config_of, random_head, random_images, random_pool


@dataclass
class Cost:
    """One line of the table.

    Args:
        name: What was measured.
        floor_s, step_s: Medians, in seconds.
        peak_bytes: Anonymous memory of the process (of the accelerator, where there is one) over the whole run, pool
            and expert outputs included, before the floor joined it.
    """

    name: str
    floor_s: float
    step_s: float
    peak_bytes: int | None

    @property
    def ratio(self) -> float:
        return self.step_s / self.floor_s


@dataclass
class Setting:
    """What is measured.

    Args:
        size: Of `hf_mdft.bench.random_pool.SIZES`.
        experts: K.
        tasks: How many of them are in a batch.
        images_per_task: Of a meta-model's batch.
        batch_size: Of a specialist's.
        bf16: Autocast to bfloat16, or fp32.
        turns: Of four steps and four of the floor.
    """

    size: str = "vit-b-32"
    experts: int = 8
    tasks: int = 8
    images_per_task: int = 16
    batch_size: int = 64
    bf16: bool = True
    turns: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.tasks <= self.experts:
            raise InputError(f"tasks must lie between 1 and the number of experts, {self.experts}; got {self.tasks}")
        for name in ("images_per_task", "batch_size", "turns"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def model(self) -> str:
        return f"{self.size}, {'bf16' if self.bf16 else 'fp32'}"

    @property
    def merge(self) -> str:
        return f"{self.model}, K = {self.experts}, {self.tasks} x {self.images_per_task} images"


def measure(setting: Setting, what: str) -> Cost:
    """One of `MEASURES`."""
    with tempfile.TemporaryDirectory() as folder:
        return MEASURES[what](setting, Path(folder))


def measure_apart(setting: Setting, what: str, prepare: Callable[[], None]) -> Cost:
    """As `measure`, in a process of its own, so that no measurement finds the memory that another one left.

    Args:
        prepare: Called in that process first.

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
    trainer, pool = _meta_trainer(setting, folder)
    batch = _noise(setting, setting.tasks * setting.images_per_task, trainer.args.device)
    timer = Interleaved(lambda: _pass_over(pool, batch, setting.bf16, trainer.args.device), memory)
    trainer.add_callback(timer)
    trainer.train()
    return _cost(f"meta-model step, {setting.merge}", timer)


def _meta_trainer(setting: Setting, folder: Path) -> tuple[MdftTrainer, ModelPool]:
    pool = random_pool(setting.size, setting.experts)
    tasks = list(pool.experts)[: setting.tasks]
    images = random_images(pool, tasks, 2 * setting.images_per_task)
    args = MdftTrainingArguments(
        output_dir=str(folder),
        max_steps=training_steps(setting.turns),
        images_per_task=setting.images_per_task,
        head_steps=0,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        **_precision(setting),
    )
    trainer = MdftTrainer(
        model=get_peft_model(pool.tower(), MdftConfig(pool=pool.reference())),
        args=args,
        train_dataset=images,
        heads={task: random_head(pool, number) for number, task in enumerate(tasks)},
        pool=pool,
    )
    return trainer, pool


def _peer(setting: Setting, folder: Path) -> Cost:
    memory = PeakMemory().start()
    pool = random_pool(setting.size, setting.experts)
    device = _device()
    batch = _noise(setting, setting.tasks * setting.images_per_task, device)
    step = peer_step(pool, list(pool.experts)[: setting.tasks], batch, setting.bf16)
    step()
    memory.stop()
    floor = _pass_over(pool, batch, setting.bf16, device)
    floor()
    timer = Interleaved(lambda: floor, memory)
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
        teacher=Teacher(targets, torch.ones(len(images)), features, {}),
    )
    device = trainer.args.device
    batch = _noise(setting, setting.batch_size, device)
    show_progress(trainer, "Specialist")
    timer = Interleaved(lambda: _fine_tuning(pool, batch, setting.bf16, device, head), memory)
    trainer.add_callback(timer)
    trainer.train()
    return _cost(f"specialist step, {setting.model}, {setting.batch_size} images", timer)


MEASURES: dict[str, Callable[[Setting, Path], Cost]] = {
    "meta": _meta,
    "specialists": _specialist,
    "peer": _peer,
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
    return Cost(name, statistics.median(timer.floors), statistics.median(timer.steps), timer.memory.stop())


def as_markdown(costs: list[Cost]) -> str:
    """The table, with machine and date."""
    rows = []
    for cost in costs:
        peak = "?" if cost.peak_bytes is None else f"{cost.peak_bytes / 2**30:.2f} GiB"
        rows.append([cost.name, f"{cost.floor_s:.2f} s", f"{cost.step_s:.2f} s", f"{cost.ratio:.2f}", peak])
    return f"{markdown_table(('', 'floor', 'step', 'ratio', 'peak memory'), rows)}\n\n{machine()}"


def machine() -> str:
    """What the figures were measured on, and when."""
    if torch.cuda.is_available():
        where, memory = torch.cuda.get_device_name(), "of the accelerator"
    else:
        where = f"{_processor()}, {torch.get_num_threads()} threads"
        memory = "anonymous, of the process"
    return f"{where}; torch {torch.__version__}; {date.today()}. Peak memory {memory}."


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
