"""Whether a model was fine-tuned from a base: by its config and the headers of its files, before any weights move."""

from __future__ import annotations

import torch

from ..architectures import Architecture, architecture_of
from ..architectures.base import read_config
from ..core.errors import InputError
from .headers import check_header, read_header
from .source import ModelSource


class Fit:
    """What every expert of a base must share with it.

    Args:
        base: The base model.

    Raises:
        InputError: No known architecture.
    """

    def __init__(self, base: ModelSource) -> None:
        self.base = base
        self.config = read_config(base.folder, str(base))
        self.architecture: Architecture = architecture_of(self.config, str(base))
        with torch.device("meta"):
            self.tower = self.architecture.new_tower(self.config)
            """Has the right names and shapes, and no storage."""

    def check(self, source: ModelSource) -> None:
        """Raises:
        InputError: The model (the base itself, too) has another architecture, other shapes, or lacks tensors.
        """
        if source != self.base:
            self._check_config(source)
        check_header(source, read_header(source), self.architecture, self.tower)

    def _check_config(self, source: ModelSource) -> None:
        config = read_config(source.folder, str(source))
        advice = "an expert must be fine-tuned from the pool's base"
        if config.model_type not in self.architecture.model_types:
            raise InputError(
                f"{source}: model type '{config.model_type}' does not fit the base {self.base} "
                f"('{self.config.model_type}'); {advice}"
            )
        mine, theirs = self.architecture.tower_config(self.config), self.architecture.tower_config(config)
        for key in self.architecture.must_agree:
            if getattr(mine, key, None) != getattr(theirs, key, None):
                raise InputError(
                    f"{source}: {key} is {getattr(theirs, key, None)}, the base {self.base} has "
                    f"{getattr(mine, key, None)}; {advice}"
                )
