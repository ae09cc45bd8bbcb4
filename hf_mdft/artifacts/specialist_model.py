"""A specialist as a folder: a complete model, or its vision tower alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..cards import Measured, SpecialistFacts, specialist_card
from ..core.typed import checked, read
from ..heads import Head, load_head
from ..pool import ModelPool
from .figures import card_figures
from .layout import HEAD, MANIFEST
from .model_files import check_model, read_tower, write_tower
from .result import RESULTS, Result, finish_folder


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
        folder.mkdir(parents=True, exist_ok=True)
        self.pool.save_complete(dict(self.state), self.head, folder)
        _finish(folder, SpecialistModel, self.head, self.facts, self.measured)

    def write_vision_only(self, folder: Path) -> None:
        """Write the vision tower and the image processor alone."""
        folder.mkdir(parents=True, exist_ok=True)
        write_tower(self.pool.architecture, self.pool.base.folder, self.state, folder)
        _finish(folder, VisionTower, self.head, self.facts, self.measured)


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
        return cls(folder, content, facts, checked(content.get("measured"), Measured | None, f"{where}: measured"))


@RESULTS.register("specialist")
@dataclass(frozen=True)
class SpecialistModel(_OfOneTask):
    """A complete model of one task."""

    label = "specialist"

    def forms(self) -> dict[str, Callable[[Path], None]]:
        return {"vision-only": self.write_vision_only}

    def write_vision_only(self, target: Path) -> None:
        """Write its vision tower alone, with a card of its own."""
        target.mkdir(parents=True, exist_ok=True)
        architecture, state = read_tower(self.folder)
        write_tower(architecture, self.folder, state, target)
        _finish(target, VisionTower, load_head(self.folder / HEAD), self.facts, self.measured)


@RESULTS.register("vision_tower")
@dataclass(frozen=True)
class VisionTower(_OfOneTask):
    """The vision tower of a specialist."""

    label = "vision tower"


def _finish(folder: Path, kind: type[Result], head: Head, facts: SpecialistFacts, measured: Measured | None) -> None:
    head.save(folder / HEAD)
    figures = card_figures(facts.meta, facts.history, folder)
    card = specialist_card(facts, measured, vision_only=kind is VisionTower, figures=figures)
    mine = {}
    if measured is not None and "specialist" in measured.accuracy:
        mine = {facts.task: Measured({"this": measured.accuracy["specialist"]}, measured.images, measured.data)}
    finish_folder(folder, kind, {"facts": facts, "measured": measured}, card, mine)
