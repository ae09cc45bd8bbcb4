"""A model from outside the pool: found, checked and run once on a task's images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import PreTrainedConfig

from ..core.cache import key_of, prepared
from ..core.device import fast_bf16
from ..core.errors import InputError
from ..core.reference import several
from ..core.threads import each
from ..embedding.views import Offset, translate
from ..heads import resolve_templates
from ..pool import ModelSource
from ..pool.names import distinct
from ..pool.source import SMALL_FILES
from ..tasks import Images, Preprocessor, Task
from ..tasks.pictures import pictures
from ..tasks.preprocessor import sample_pictures
from .classifier import check_size, config_of, load_classifier, matched_columns, tokenizer_of, tokens_key


VERSION = 2
"""Version of the kept outputs; another one for every change of how they are computed."""

BATCH, FILE = 32, "log_probs.safetensors"


@dataclass(frozen=True)
class OutsideTeacher:
    """A classifier of any architecture and input size that teaches one task. It gives soft targets, no weights.

    Args:
        task: Name of the task.
        options: Options of the task, whose unlabelled images it reads in its own size.
        source: The model.
        class_names: Class names of the task.
        templates: Prompts of the task, for zero-shot models.
        name: As tables name it.

    Raises:
        InputError: It is no image classifier, lacks a class of the task, or does not read what its image processor
            gives; found before any weights are downloaded.
    """

    task: str
    options: Task
    source: ModelSource
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    name: str
    config: PreTrainedConfig = field(init=False, repr=False, compare=False)
    columns: list[list[int]] | None = field(init=False, repr=False, compare=False)
    preprocessor: Preprocessor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        where = f"{self.source}, teacher of task '{self.task}'"
        object.__setattr__(self, "config", config_of(self.source))
        object.__setattr__(self, "columns", matched_columns(self.config, self.class_names, where))
        object.__setattr__(self, "preprocessor", Preprocessor(self.source.folder, str(self.source)))
        if self.columns is None:
            tokenizer_of(self.source)
        check_size(self.source, self.config, self.preprocessor)

    def key(self) -> list[Any]:
        """Changes with everything that its outputs depend on but the images."""
        told = None if self.columns is not None else [self.templates, tokens_key(self.source)]
        return [self.source.reference.revision, self.class_names, self.columns, told, self.preprocessor.key()]

    def log_probs(
        self, images: Images, views: tuple[Offset, ...], *, device: torch.device | str, desc: str | None = None
    ) -> list[torch.Tensor]:
        """Log-probabilities `(N, C)` under every view, computed the first time only.

        Args:
            images: Unlabelled images of the task; the pictures behind them are read in the teacher's own size.
            views: Offsets of the views.
            device: Device that the model runs on.
            desc: Title of progress bars; the default shows none.
        """
        bf16 = fast_bf16(device)
        key = ["teacher", VERSION, self.key(), images.key, bf16, views]

        def make(folder: Path) -> None:  # all views at once: a picture is decoded once
            found = self._run(images, views, device, bf16, desc)
            save_file({str(number): part for number, part in enumerate(found)}, folder / FILE)

        kept = load_file(prepared("teachers", key_of(*key), make) / FILE)
        return [kept[str(number)] for number in range(len(views))]

    @torch.no_grad()
    def check(self) -> None:
        """Whether its weights are all there and give finite numbers, on made pictures; looked at the first time only.

        Raises:
            InputError: They do not.
        """

        def make(folder: Path) -> None:
            classify = load_classifier(self.source, self.config, self.columns, self.class_names, self.templates, "cpu")
            pixels = torch.from_numpy(self.preprocessor.encode(sample_pictures()))
            self._refuse_no_numbers(classify(self.preprocessor.normalize(pixels)))
            (folder / "checked").touch()

        prepared("teacher-checks", key_of("teacher check", VERSION, self.key()), make)

    def _refuse_no_numbers(self, outputs: torch.Tensor) -> None:
        if not outputs.isfinite().all():
            raise InputError(f"{self.source}, teacher of task '{self.task}': its outputs are no finite numbers")

    @torch.no_grad()
    def _run(
        self,
        images: Images,
        views: tuple[Offset, ...],
        device: torch.device | str,
        bf16: bool,
        desc: str | None,
    ) -> list[torch.Tensor]:
        classify = load_classifier(self.source, self.config, self.columns, self.class_names, self.templates, device)
        found: list[list[torch.Tensor]] = [[] for _ in views]
        batches = pictures(images, self.task, self.options, BATCH)
        for batch in tqdm(batches, total=-(-len(images) // BATCH), desc=desc, leave=False, disable=desc is None):
            pixels = torch.from_numpy(self.preprocessor.encode(batch)).to(device)
            pixel_values = self.preprocessor.normalize(pixels)
            for number, offset in enumerate(views):
                with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
                    found[number].append(classify(translate(pixel_values, offset)).float().cpu())
        joined = [torch.cat(parts) for parts in found]
        for part in joined:
            self._refuse_no_numbers(part)
        return joined


def outside_teachers(
    name: str, task: Task, class_names: Sequence[str], token: str | bool | None = None
) -> tuple[OutsideTeacher, ...]:
    """The teachers that a task names, found and checked; no weights are downloaded.

    Args:
        name: Name of the task.
        task: Its options.
        class_names: Class names of its head.
        token: For private and gated repos, as in transformers.

    Raises:
        InputError: One cannot be found, is no image classifier, or lacks a class; the message names it.
    """
    templates = tuple(resolve_templates(task.templates, f"task '{name}'"))
    found = each(lambda spec: ModelSource.resolve(spec, token, patterns=SMALL_FILES), several(task.teachers))
    sources, teachers = distinct(name, found), []
    for source in sources:
        shown = source.reference.name
        alike = [other for other in sources if other.reference.name == shown]
        if len(alike) > 1:
            shown = f"{shown}, number {alike.index(source) + 1}"
        teachers.append(OutsideTeacher(name, task, source, tuple(class_names), templates, shown))
    return tuple(teachers)
