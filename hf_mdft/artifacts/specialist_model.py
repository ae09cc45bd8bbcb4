"""A specialist as a folder: a complete model, or its vision tower alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard

from ..cards import Measured, SpecialistFacts, specialist_card
from ..cards.facts import check_facts
from ..core.typed import checked, read
from ..heads import Head, load_head
from ..pool import ModelPool, ModelSource
from ..pool.processors import copy_processor, processor_of
from .figures import card_figures
from .layout import HEAD, MANIFEST
from .model_files import check_model, read_tower, write_tower
from .result import RESULTS, Result
from .writing import write_result


@dataclass(frozen=True)
class SpecialistParts:
    """A specialist in memory.

    Args:
        pool: The pool that it came from.
        state: State of its tower.
        head: Head of the task.
        facts: How it was made.
        measured: Its accuracy, where labelled images were given.
    """

    pool: ModelPool
    state: Mapping[str, torch.Tensor]
    head: Head
    facts: SpecialistFacts
    measured: Measured | None = None

    def write(self, folder: Path) -> None:
        """Write the complete model: weights, config, the base's processor and tokenizer, head, card."""

        def write_model() -> None:
            self.pool.save_complete(dict(self.state), self.head, folder)
            if self._processor is not self.pool.base:
                copy_processor(self._processor, folder)

        self._write(folder, SpecialistModel, write_model)

    def write_vision_only(self, folder: Path) -> None:
        """Write the vision tower and the image processor alone."""
        pool = self.pool
        write = functools.partial(
            write_tower, pool.architecture, pool.config, self._processor.folder, self.state, folder
        )
        self._write(folder, VisionTower, write)

    @property
    def _processor(self) -> ModelSource:
        """Whose image processor the task's images went through."""
        return processor_of(self.pool, self.facts.task)

    def _write(self, folder: Path, kind: type[Result], write_model: Callable[[], None]) -> None:
        _write(folder, kind, write_model, self.head, self.facts, self.measured)


@dataclass(frozen=True)
class _OfOneTask(Result):
    """A result of one task.

    Args:
        facts: How it was made.
        measured: Its accuracy, where labelled images were given.
    """

    facts: SpecialistFacts
    measured: Measured | None

    @classmethod
    def read(cls, folder: Path, content: Mapping[str, Any]) -> _OfOneTask:
        where = f"{folder}: {MANIFEST}"
        check_model(folder)
        facts = read(SpecialistFacts, content.get("facts"), f"{where}: facts")
        check_facts(facts, where)
        return cls(folder, facts, checked(content.get("measured"), Measured | None, f"{where}: measured"))


@RESULTS.register("specialist")
@dataclass(frozen=True)
class SpecialistModel(_OfOneTask):
    """A complete model of one task."""

    label = "specialist"

    def forms(self) -> dict[str, Callable[[Path], None]]:
        return {"vision-only": self.write_vision_only}

    def write_vision_only(self, target: Path) -> None:
        """Write its vision tower alone, with a card of its own."""
        architecture, config, state = read_tower(self.folder)
        head = load_head(self.folder / HEAD)
        write = functools.partial(write_tower, architecture, config, self.folder, state, target)
        _write(target, VisionTower, write, head, self.facts, self.measured)


@RESULTS.register("vision_tower")
@dataclass(frozen=True)
class VisionTower(_OfOneTask):
    """The vision tower of a specialist."""

    label = "vision tower"


def _write(
    folder: Path,
    kind: type[Result],
    write_model: Callable[[], None],
    head: Head,
    facts: SpecialistFacts,
    measured: Measured | None,
) -> None:
    def write_files() -> Callable[[], ModelCard]:
        write_model()
        head.save(folder / HEAD)
        return lambda: specialist_card(
            facts, measured, vision_only=kind is VisionTower, figures=card_figures(facts.meta, facts.history, folder)
        )

    value = None if measured is None else measured.accuracy.get("specialist")
    mine = {} if value is None else {facts.task: (value, measured)}
    write_result(folder, kind, {"facts": facts, "measured": measured}, write_files, mine)
