"""Time to quality: seconds until the meta-model is as accurate as published methods are in the end. Reads labels."""

from __future__ import annotations

import copy
import dataclasses
import functools
import gc
import operator
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import torch
from peft import get_peft_model
from torch import nn
from transformers import TrainerCallback, TrainerState, set_seed

from ..adapter import MdftConfig
from ..artifacts import folded_tower
from ..core.device import best_device, now
from ..core.errors import InputError
from ..core.scratch import scratch
from ..embedding.statistics import estimate_statistics
from ..evaluation import predict
from ..heads import Head
from ..merger import MetaMerger
from ..meta import MdftTrainer
from ..recipes.run import Baseline
from ..recipes.schema import Recipe
from .outcome import average, inputs_key, measured_tasks, remembered


KEY_VERSION = "time 3"
"""Changes with the code of this study, so that nothing that older code found is used."""

OURS, BASELINES = "this recipe", ("symerge", "adamerging")

CLOSE, EARLY, APART = 10, 50, 25
"""Steps between two looks, up to which step, and from there on."""

HEADER = ("", "average", "seconds", "before step 1", "had it after", f"{OURS} has it", "after", "ratio")


@dataclass(frozen=True)
class Look:
    """A meta-model at one moment of its phase 1.

    Args:
        step: Optimizer steps so far. The last look comes after the heads' own steps too.
        accuracy: Mean over tasks of the accuracy on evaluation images, 0 to 1.
        clock: Seconds since phase 1 began, with everything before the first step, without the looks.
        processor: Seconds that this process has had of processors meanwhile: what others do on the machine changes
            them little. They say nothing of an accelerator.
    """

    step: int
    accuracy: float
    clock: float
    processor: float


def times() -> torch.Tensor:
    """What the clock and the process's processor time show, in seconds, `(2,)`."""
    return torch.tensor([now(), time.process_time()], dtype=torch.float64)


class Watch(TrainerCallback):
    """Clocks of phase 1 that stand still while the meta-model is measured.

    Args:
        start: When phase 1 began, by `times()`.
        accuracy: Gives the meta-model's accuracy.
    """

    def __init__(self, start: torch.Tensor, accuracy: Callable[[], float]) -> None:
        self.start, self.accuracy = start, accuracy
        self.looks: list[Look] = []

    def look(self, step: int) -> None:
        stopped = times()
        self.looks.append(Look(step, self.accuracy(), *(stopped - self.start).tolist()))
        self.start = self.start + times() - stopped

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.look(state.global_step)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.global_step % (CLOSE if state.global_step <= EARLY else APART) == 0:
            self.look(state.global_step)


def time_to_quality(
    recipe: Recipe, baselines: Sequence[str], output_dir: Path, progress: Callable[[str], None]
) -> dict[str, list[Look]]:
    """Train the recipe's meta-model and those of baselines, with a clock, and measure each now and then.

    Images, heads and the comparison with plain transformers are prepared before and count for nobody. All else counts
    for everybody: each has an empty cache, so that none finds task vectors or outputs of experts of another one. The
    recipe comes first: what only the first one pays counts against it.

    Args:
        recipe: Recipe with evaluation images.
        baselines: Presets that make a meta-model.
        output_dir: Folder of work in progress; a study that was cut off goes on there.
        progress: Called with one line at every step.

    Returns:
        Looks by method, in order: the recipe, then the baselines.

    Raises:
        InputError: No task has evaluation images, or a baseline is unknown or makes no meta-model.
    """
    merger = recipe.merger()
    tasks, recipes = measured_tasks(merger, str(recipe.path)), {OURS: recipe}
    for name in baselines:
        if Baseline.named(name, recipe, output_dir).meta is None:
            raise InputError(f"baseline '{name}' makes no meta-model of its own; leave it out")
        recipes[name] = recipe.with_preset(name)
    progress("Images, heads and a comparison with plain transformers, which nobody is charged for")
    merger.inputs()
    labelled, images = {task: merger.labelled(task) for task in tasks}, list(map(merger.unlabelled, merger.tasks))

    def measure(model: nn.Module, heads: Mapping[str, Head]) -> float:
        tower = estimate_statistics(folded_tower(model).to(best_device()), images)
        found = {}
        for task, data in labelled.items():
            head = copy.deepcopy(heads[task]).cpu()
            found[task] = predict(tower, merger.pool.architecture, head, data.images) == data.labels
        return average(found)

    machine = [platform.node(), torch.get_num_threads(), str(best_device())]
    inputs = [KEY_VERSION, machine, merger.pool.reference(), inputs_key(merger, tasks)]
    found = {}
    for name, own in recipes.items():
        progress(f"Phase 1 of {name}")
        folder = output_dir / name.replace(" ", "-")

        def make(own: Recipe = own, folder: Path = folder) -> dict[str, Any]:
            looks = _watched(merger.variant(MdftConfig(**own.adapter)), own, folder, measure)
            return {"looks": list(map(dataclasses.asdict, looks))}

        saved = remembered(folder / "outcome.json", [*inputs, own.adapter, own.meta, own.seed], make)
        found[name] = [Look(**look) for look in saved["looks"]]
        progress(f"  {100 * found[name][-1].accuracy:.1f} after {found[name][-1].clock:.1f} s")
    return found


def _watched(merger: MetaMerger, recipe: Recipe, folder: Path, measure: Callable[..., float]) -> list[Look]:
    """Phase 1 as `MetaMerger.fit` does it, in an empty cache, watched."""
    experts, images, heads = merger.checked()
    gc.collect()  # task vectors that are still open elsewhere would be taken from there
    with scratch(folder) as work, mock.patch.dict(os.environ, HF_MDFT_CACHE=str(work / "cache")):
        args = recipe.meta_arguments(work)
        set_seed(args.seed)
        start = times()
        model = get_peft_model(merger.pool.tower(), copy.deepcopy(merger.config))
        if args.max_steps == 0:  # a static merge
            watch, steps = Watch(start, functools.partial(measure, model, heads)), 0
            estimate_statistics(model, list(images.values()))
        else:
            trainer = MdftTrainer(model, args, train_dataset=images, heads=heads, experts=experts)
            watch = Watch(start, functools.partial(measure, model, trainer.heads))
            trainer.add_callback(watch)
            trainer.train()
            trainer.finish()
            steps = trainer.state.global_step
        watch.look(steps)
    return watch.looks


def first(looks: Sequence[Look], accuracy: float) -> Look | None:
    """The first look with no less than an accuracy; `None` where there is none."""
    return next((look for look in looks if look.accuracy >= accuracy), None)


def passed(found: Mapping[str, Sequence[Look]]) -> dict[str, Look | None]:
    """The recipe's first look with no less than what a baseline ends with, by baseline."""
    return {name: first(found[OURS], looks[-1].accuracy) for name, looks in found.items() if name != OURS}


def as_lines(found: Mapping[str, Sequence[Look]], seconds: Literal["clock", "processor"]) -> list[list[str]]:
    """Cells of the table, from looks by method: accuracy in percent, seconds, and how many times as long a baseline
    took to its end as the recipe took to the same accuracy."""
    took = operator.attrgetter(seconds)
    lines, ours = [], passed(found)
    for name, looks in found.items():
        last, cells = looks[-1], ["" if name == OURS else "never", "", ""]
        if look := ours.get(name):
            step = f"at step {look.step}" if look.step else "before step 1"
            step = "at the end" if look is found[OURS][-1] else step
            cells = [step, f"{took(look):.1f}", f"{took(last) / took(look):.1f}"]
        own = (f"{took(look):.1f}" for look in (last, looks[0], first(looks, last.accuracy)))
        lines.append([name, f"{100 * last.accuracy:.1f}", *own, *cells])
    return lines
