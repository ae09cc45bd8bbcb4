"""The measurements of `hf-mdft bench`."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model

from ..adapter import MdftConfig
from ..core.cache import cache_root
from ..core.scratch import scratch
from ..meta import MdftTrainer, MdftTrainingArguments
from ..specialize import SpecializeArguments, StudentTrainer, Teacher
from ..trainers import show_progress
from .apart import apart
from .fusion_bench import fusion_bench_step
from .interleaved import Interleaved, training_steps
from .lower_bounds import fine_tuning, noise, pass_over
from .memory import PeakMemory
from .random_pool import CLASSES, random_head, random_images, random_pool
from .setting import Setting
from .table import Cost
from .whole_run import whole_run


def measure(setting: Setting, what: str) -> Any:
    """One of `MEASURES`, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        return MEASURES[what](setting, Path(folder))


def measure_apart(setting: Setting, what: str, prepare: Callable[[], None]) -> Any:
    """One of `MEASURES`, in a process of its own, so that no measurement finds the memory that another one left.

    Args:
        prepare: Function that sets that process up; called first.

    Raises:
        InputError: The process was killed.
    """
    with scratch(cache_root()) as folder:
        return apart(prepare, what, MEASURES[what], setting, folder)


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
        distillation_views=False,  # what is before the steps is not measured
        restore=False,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        **setting.precision,
    )
    trainer = MdftTrainer(
        model=get_peft_model(pool.tower(), MdftConfig(pool=pool.reference())),
        args=args,
        train_dataset=random_images(pool, tasks, 2 * setting.images_per_task, folder),
        heads={task: random_head(pool, number) for number, task in enumerate(tasks)},
        pool=pool,
    )
    batch = noise(setting, setting.tasks * setting.images_per_task, args.device)
    timer = Interleaved(lambda: pass_over(pool, batch, setting.bf16, args.device), memory)
    trainer.add_callback(timer)
    trainer.train()
    return _cost(f"meta-model step, {setting.merge}", timer)


def _fusion_bench(setting: Setting, folder: Path) -> Cost:
    memory = PeakMemory().start()
    pool = random_pool(setting.size, setting.experts)
    device = setting.device
    batch = noise(setting, setting.tasks * setting.images_per_task, device)
    step = fusion_bench_step(pool, list(pool.experts)[: setting.tasks], batch, setting.bf16)
    timer = Interleaved(lambda: pass_over(pool, batch, setting.bf16, device), memory)
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
    images = random_images(pool, [task], 2 * setting.batch_size, folder)[task]
    head = random_head(pool, 0)
    args = SpecializeArguments(
        output_dir=str(folder),
        max_steps=training_steps(setting.turns),
        per_device_train_batch_size=setting.batch_size,
        learning_rate=1e-5,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        **setting.precision,
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
    batch = noise(setting, setting.batch_size, args.device)
    show_progress(trainer, "Specialist")
    timer = Interleaved(lambda: fine_tuning(pool, batch, setting.bf16, args.device, head), memory)
    trainer.add_callback(timer)
    trainer.train()
    return _cost(f"specialist step, {setting.model}, {setting.batch_size} images", timer)


MEASURES: dict[str, Callable[[Setting, Path], Any]] = {
    "meta": _meta,
    "specialists": _specialist,
    "baseline": _fusion_bench,
    "run": whole_run,
}


def _cost(name: str, timer: Interleaved) -> Cost:
    return Cost(name, statistics.median(timer.lower_bounds), statistics.median(timer.steps), timer.memory.stop())
