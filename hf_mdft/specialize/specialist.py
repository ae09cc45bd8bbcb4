"""The result for one task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..heads import Head
from ..pool import ModelPool
from .gate import Decision


@dataclass
class Specialist:
    """What phase 2 gives for one task: the student where the gate chose it, else the expert.

    Args:
        task: Its name.
        pool: That it came from.
        head: Of the task.
        decision: Of the gate.
        candidate: State dict of the student's tower, whatever the gate said.
        history: Log lines of the student's training.
    """

    task: str
    pool: ModelPool
    head: Head
    decision: Decision
    candidate: dict[str, torch.Tensor]
    history: list[dict[str, float]]

    @property
    def improved(self) -> bool:
        """Whether the gate chose the student."""
        return self.decision.chosen == "specialist"

    def tower(self, gated: bool = True) -> nn.Module:
        """The tower in evaluation mode; `gated=False` gives the student even where the gate kept the expert."""
        if gated and not self.improved:
            return self.pool.tower(self.task)
        tower = self.pool.tower()
        tower.load_state_dict(self.candidate)
        return tower

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the complete model: weights in safetensors, config, and the base's processor and tokenizer.

        It loads with plain transformers, without this package.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.pool.save_complete(self.tower().state_dict(), self.head, folder)
