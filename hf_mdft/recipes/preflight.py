"""Before anything is trained: what a run was given, what it will cost, and what the models see."""

from __future__ import annotations

import contextlib
import io
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image

from ..cards import TaskInputs
from ..core.attention import quick_attention
from ..core.cache import cache_root
from ..core.device import best_device, fast_bf16
from ..core.errors import InputError
from ..core.memory import peak_memory_bytes
from ..embedding import embed_images
from ..merger import MetaMerger
from ..meta import META_TERMS, MdftTrainingArguments, check_division
from ..pool.download import size_text
from ..specialize import STUDENT_TERMS, SpecializeArguments, check_head
from ..specialize.gate import LEAST_DIFFERENT
from ..specialize.terms import StudentTerm
from ..trainers.ranges import check_optimizer
from ..trainers.terms import term_weights


TIMED = 16
"""Images of the forward and backward passes that are timed."""

LOOKS, LOOKS_TO_MEASURE = 13, 25
"""Forward passes of an unlabelled image beside training, where views agree on half of them, and of an evaluation
image, with the defaults."""

LOOKS_OF_SOME = 26_000
"""Forward passes of a task, however many images it has: restorations are looked for, and the gate looks at some."""

STATES = 5
"""Sizes of a tower that training one holds: weights, their average, gradient and the optimizer's two."""

PICTURES = 8
"""Pictures of a task on the contact sheet."""


@dataclass(frozen=True)
class Estimate:
    """What a run will cost, about.

    Args:
        seconds: Time of all stages but downloads.
        memory: Largest memory of the process, in bytes.
        disk: Space that caches and results will take, in bytes.
        device: Where it was timed.
        most: Most unlabelled images of a task that phase 2 uses; `None`: all.
        more: Tasks that have more.
        few: Tasks of which too few images are there for the gate to keep anything.
    """

    seconds: float
    memory: float
    disk: float
    device: str
    most: int | None = None
    more: tuple[str, ...] = ()
    few: tuple[str, ...] = ()

    def __str__(self) -> str:
        minutes = round(self.seconds / 60)
        time_text = f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
        if minutes < 2:
            time_text = "a minute or two"
        used = ""
        if self.more:
            used = (
                f"\nOf {', '.join(self.more)}, {self.most:,} images are used ('images'; null: all): looking at many "
                "more would cost more than the training"
            )
        if self.few:
            used += (
                f"\nOf {', '.join(self.few)}, fewer than {LEAST_DIFFERENT} images are there, too few to show an "
                "improvement: nothing is trained for it ('gate: false' trains all the same)"
            )
        return (
            f"Roughly {time_text} on {self.device}, {size_text(self.memory)} of memory, {size_text(self.disk)} "
            "of disk (from a few timed batches; steps may be fewer, and what is in the cache costs nothing)"
            f"{used}"
        )


@dataclass(frozen=True)
class Seen:
    """A picture as the model sees it.

    Args:
        png: The picture.
        text: What the expert says of it.
    """

    png: bytes
    text: str


def estimate(
    merger: MetaMerger, inputs: Mapping[str, TaskInputs], meta: MdftTrainingArguments, specialize: SpecializeArguments
) -> Estimate:
    """What a run will cost, from a few timed passes of the base.

    Args:
        merger: Pool and tasks, checked.
        inputs: What `merger.inputs()` gave.
        meta: Arguments of phase 1.
        specialize: Arguments of phase 2.
    """
    device = best_device()
    tower = merger.pool.tower().to(device)
    images = merger.unlabelled(next(iter(inputs)))
    pixels = next(images.batches(min(TIMED, len(images)))).to(device)
    look, train = _timed(tower, merger, pixels)
    side_by_side = min(PartialState().num_processes, len(inputs))
    size = sum(tensor.numel() for tensor in tower.parameters())
    steps = specialize.max_steps if specialize.max_steps > 0 else 0
    seconds = 0.0
    for found in inputs.values():
        used = min(found.images, specialize.images or found.images)
        looks = LOOKS * used + min(LOOKS_OF_SOME, LOOKS_OF_SOME // 1000 * used)
        seconds += (looks + LOOKS_TO_MEASURE * (found.evaluation or 0)) * look
        seconds += max(meta.max_steps, 0) * meta.images_per_task * train
        seconds += bool(specialize.rounds) * steps * specialize.per_device_train_batch_size * train
    pictures = sum(f.images + (f.evaluation or 0) for f in inputs.values()) * pixels[0].numel()
    models = (2 * len(inputs) + 1) * 4 * size
    disk = 2 * size * len(merger.pool.experts) + models + pictures
    memory, most = (peak_memory_bytes() or 0) + STATES * 4 * size, specialize.images
    more = tuple(task for task, found in inputs.items() if most is not None and found.images > most)
    gated = specialize.rounds and specialize.gate
    few = tuple(task for task, found in inputs.items() if gated and found.images < LEAST_DIFFERENT)
    return Estimate(seconds / side_by_side, memory, disk, str(device), most, more, few)


def check_options(meta: MdftTrainingArguments, specialize: SpecializeArguments) -> None:
    """Whether what both phases' options name can be made: optimizers, terms and batches, which training makes late.

    Raises:
        InputError: It cannot.
    """
    for args in (meta, specialize):
        check_optimizer(args)
    of_meta, of_student = term_weights(meta, META_TERMS), term_weights(specialize, STUDENT_TERMS)
    if meta.max_steps and not of_meta:
        raise InputError("meta: every term has weight 0, so there is nothing to learn; max_steps: 0 merges")
    if specialize.rounds and not any(issubclass(STUDENT_TERMS.get(name), StudentTerm) for name in of_student):
        raise InputError("specialize: every term of the student's outputs has weight 0, so there is nothing to learn")
    for name in of_meta:
        META_TERMS.get(name)(2, meta)
    if meta.max_steps:
        check_division(meta)


def check_heads(merger: MetaMerger, specialize: SpecializeArguments) -> None:
    """Whether complete models can be written with the tasks' heads.

    Raises:
        InputError: They cannot.
    """
    for task in merger.tasks if specialize.rounds and merger.pool.architecture.own_heads else ():
        check_head(task, merger.head(task), merger.pool)


def _timed(tower: torch.nn.Module, merger: MetaMerger, pixels: torch.Tensor) -> tuple[float, float]:
    """Seconds for an image of a forward pass, and of a forward and backward pass."""
    found, device = [], pixels.device
    bf16 = fast_bf16(device)
    for training in (False, True):
        tower.train(training)
        taken = []
        for _ in range(2):  # the first one warms up
            start = time.perf_counter()
            with contextlib.ExitStack() as stack:
                stack.enter_context(torch.set_grad_enabled(training))
                stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=bf16))
                if training:
                    stack.enter_context(quick_attention(device, bf16))
                features = merger.pool.architecture.features(tower(pixel_values=pixels)).float()
            if training:
                features.sum().backward()
            features.sum().item()  # waits for an accelerator
            taken.append(time.perf_counter() - start)
        found.append(taken[-1] / len(pixels))
    return found[0], found[1]


def check_space(found: Estimate, output_dir: Path) -> None:
    """Whether caches and results fit on the disk.

    Raises:
        InputError: They do not.
    """
    place = next(path for path in (output_dir.absolute(), *output_dir.absolute().parents) if path.exists())
    for where in (place, next(path for path in (cache_root(), *cache_root().parents) if path.exists())):
        free = shutil.disk_usage(where).free
        if found.disk > free:
            raise InputError(
                f"{where}: about {size_text(found.disk)} are needed for caches and results, {size_text(free)} are "
                "free; free space, choose another --output-dir or set HF_MDFT_CACHE"
            )


@torch.no_grad()
def contact_sheet(merger: MetaMerger) -> dict[str, list[Seen]]:
    """A few pictures of every task as the models see them, with what the task's expert (the base, for a task without
    one) says of each."""
    return {task: _pictures(merger, task) for task in merger.tasks}


def _pictures(merger: MetaMerger, task: str) -> list[Seen]:
    images = merger.unlabelled(task)
    rows = np.unique(np.linspace(0, len(images) - 1, min(PICTURES, len(images))).round().astype(int))
    chosen, names = images.subset(rows), merger.pool.experts_of(task)
    head = merger.expert_heads(task)[names[0]] if names else merger.head(task)
    features = embed_images(merger.pool.tower(names[0] if names else None), merger.pool.architecture, chosen)
    shares, classes = head(features).softmax(dim=-1).max(dim=-1)
    found = []
    for pixels, share, number in zip(chosen.pixels(range(len(chosen))), shares, classes, strict=True):
        file = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "PNG")
        found.append(Seen(file.getvalue(), f"{head.class_names[int(number)]}, {share:.0%}"))
    return found
