"""A whole run by stage: what it takes beside the training passes alone."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from transformers import Trainer, TrainerCallback

from ..core.device import now
from ..core.timing import Timing
from ..merger import MetaMerger
from ..meta import MdftTrainingArguments
from ..pool import ModelPool
from ..specialize import SpecializeArguments
from ..specialize.gate import information_by_others
from ..tasks import Task
from .lower_bounds import fine_tuning, noise, pass_over
from .memory import PeakMemory
from .random_pool import random_data, random_head, random_models
from .setting import Setting


@dataclass
class Phase:
    """Seconds of phase 1, or of one specialist.

    Args:
        before_s: Outputs of experts and base, restorations; in phase 1 task vectors, in phase 2 teacher and start.
        training_s: From the first to the last line of `Trainer.train`.
        after_s: In phase 1 the heads alone, in phase 2 the gate.
        steps_s: Seconds of each step but the first.
    """

    before_s: float
    training_s: float
    after_s: float
    steps_s: list[float]

    @property
    def steps(self) -> int:
        return len(self.steps_s) + 1

    @property
    def step_s(self) -> float:
        """Median of a step."""
        return statistics.median(self.steps_s)


@dataclass
class WholeRun:
    """What a run took, from an open pool to the last specialist.

    Args:
        setting: What was run.
        seconds: Time of the whole run.
        opening_s: The pool's headers, heads and images given to a `MetaMerger`.
        prepare_s: Images decoded and preprocessed, models compared with plain transformers.
        meta: Phase 1.
        specialists: Phase 2, one for each task.
        peak_bytes: Most memory of the process, or of its accelerator; `None` where it cannot be known.
        disk_bytes: What the run left in the cache.
        strangers_s: Time that the experts of all tasks took on images of the other tasks, once more where only some of
            the tasks were specialised. (Not part of the run.)
        passes_s: Time of as many steps of the passes alone: forward and backward of one model on the same batch, and
            plain fine-tuning.
    """

    setting: Setting
    seconds: float
    opening_s: float
    prepare_s: float
    meta: Phase
    specialists: list[Phase]
    peak_bytes: int | None
    disk_bytes: int
    strangers_s: float
    passes_s: float = 0.0

    @property
    def preparation_s(self) -> float:
        """Everything before the first step."""
        return self.opening_s + self.prepare_s + self.meta.before_s

    def stages(self) -> dict[str, float]:
        """Seconds by stage, which sum up to the whole."""
        count, steps = len(self.specialists), sum(part.steps for part in self.specialists)
        found = {
            "opening: pool, heads": self.opening_s,
            "preparation: images, parity": self.prepare_s,
            "phase 1: task vectors, experts' outputs, restorations": self.meta.before_s,
            f"phase 1: training, {self.meta.steps} steps": self.meta.training_s,
            "phase 1: heads alone": self.meta.after_s,
            f"phase 2, {count} tasks: evidence, teacher": sum(part.before_s for part in self.specialists),
            f"phase 2: training, {steps} steps": sum(part.training_s for part in self.specialists),
            "phase 2: gate, writing": sum(part.after_s for part in self.specialists),
        }
        return found | {"rest": self.seconds - sum(found.values())}


class Clock(Timing):
    """Seconds by stage, in place of `MetaMerger.timing`, that also keeps when each began and was over."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: dict[str, tuple[float, float]] = {}

    def __setitem__(self, stage: str, seconds: float) -> None:
        over = time.perf_counter()
        self.spans[stage] = (over - seconds + self.get(stage, 0.0), over)
        super().__setitem__(stage, seconds)


@dataclass
class Training(TrainerCallback):
    """When a trainer began, ended each step, and was over."""

    began: float
    ends: list[float] = field(default_factory=list)
    over: float = 0.0

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(now())

    def within(self, span: tuple[float, float]) -> Phase:
        """The phase that it is the training of, from one time to another."""
        steps = [after - before for before, after in zip(self.ends, self.ends[1:], strict=False)]
        return Phase(self.began - span[0], self.over - self.began, span[1] - self.over, steps)


@contextlib.contextmanager
def watched_training() -> Iterator[list[Training]]:
    """Every training by a `Trainer` meanwhile, in order."""
    found: list[Training] = []
    train = Trainer.train

    def watched(trainer: Trainer, *args: Any, **kwargs: Any) -> Any:
        found.append(Training(now()))
        trainer.add_callback(found[-1])
        output = train(trainer, *args, **kwargs)
        found[-1].over = now()
        return output

    with mock.patch.object(Trainer, "train", watched):
        yield found


def one_after_the_other(seconds: Sequence[float], over: float) -> list[tuple[float, float]]:
    """When each of several stages began and was over; they followed one another, and the last was over then."""
    ends = [over - sum(seconds[number + 1 :]) for number in range(len(seconds))]
    return [(end - own, end) for own, end in zip(seconds, ends, strict=True)]


def run_by_stage(setting: Setting, folder: Path, name: str = "run") -> WholeRun:
    """A run through the public classes, with a cache of its own.

    Args:
        setting: What is run.
        folder: Folder of the cache, which is empty at first, and of the output.
        name: Name of the output in it.
    """
    memory = PeakMemory().start()
    models = random_models(setting.size, setting.experts)
    names, output, cache = list(models[1])[: setting.tasks], folder / name, folder / "cache"
    output.mkdir()
    data = {task: random_data(number, setting.images, output) for number, task in enumerate(names)}
    with mock.patch.dict(os.environ, HF_MDFT_CACHE=str(cache)), watched_training() as trainings:
        start = time.perf_counter()
        pool = ModelPool.from_pretrained(*models)
        heads = {task: random_head(pool, number, setting.classes) for number, task in enumerate(names)}
        merger = MetaMerger(pool, {task: Task(unlabelled=data[task], head=heads[task]) for task in names})
        merger.timing = clock = Clock()
        opening = time.perf_counter() - start
        merger.fit(_meta_arguments(setting, output))
        merger.specialize(_specialist_arguments(setting, output), names[: setting.specialists])
        seconds, peak, left = time.perf_counter() - start, memory.stop(), bytes_under(cache)
        start = time.perf_counter()
        information_by_others(
            {t: merger.experts(t) for t in names}, {t: merger.unlabelled(t) for t in names}, setting.device
        )
        strangers = time.perf_counter() - start
    first, *later = [stage for stage in clock.spans if stage != "prepare"]
    over = max(end for _, end in clock.spans.values())  # seconds of all tasks are told when the last one is done
    spans = [clock.spans[first], *one_after_the_other([clock[stage] for stage in later], over)]
    meta, *specialists = [training.within(span) for training, span in zip(trainings, spans, strict=True)]
    return WholeRun(setting, seconds, opening, clock["prepare"], meta, specialists, peak, left, strangers)


def whole_run(setting: Setting, folder: Path) -> WholeRun:
    """A run, and the passes alone of as many steps on the same batches."""
    found = run_by_stage(setting, folder)
    pool, device = ModelPool.from_pretrained(*random_models(setting.size, 1)), setting.device
    batch = noise(setting, setting.tasks * setting.images_per_task, device)
    found.passes_s = found.meta.steps * seconds_of(pass_over(pool, batch, setting.bf16, device))
    head, batch = (
        random_head(pool, 0, setting.classes),
        noise(setting, min(setting.batch_size, setting.images), device),
    )
    step_s = seconds_of(fine_tuning(pool, batch, setting.bf16, device, head))
    found.passes_s += step_s * sum(part.steps for part in found.specialists)
    return found


def seconds_of(step: Callable[[], None]) -> float:
    """Median of five runs of a step, after two that are not counted."""
    times = []
    for _ in range(7):
        start = now()
        step()
        times.append(now() - start)
    return statistics.median(times[2:])


def bytes_under(folder: Path) -> int:
    """Size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _meta_arguments(setting: Setting, output: Path) -> MdftTrainingArguments:
    return MdftTrainingArguments(
        output_dir=str(output / "meta"),
        images_per_task=setting.images_per_task,
        images_per_micro_batch=setting.images_per_micro_batch,
        report_to="none",
        **({} if setting.max_steps is None else {"head_steps": 2 * setting.max_steps}),
        **_most_steps(setting),
        **setting.precision,
    )


def _specialist_arguments(setting: Setting, output: Path) -> SpecializeArguments:
    return SpecializeArguments(
        output_dir=str(output / "specialists"),
        per_device_train_batch_size=setting.batch_size,
        report_to="none",
        gate=False,  # all that it looks at costs the same; with it, nothing would be trained from random images
        **_most_steps(setting),
        **setting.precision,
    )


def _most_steps(setting: Setting) -> dict[str, int]:
    return {} if setting.max_steps is None else {"max_steps": setting.max_steps}
