"""Whether a model was fine-tuned from a base: by its config and the headers of its files, before any weights move."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from transformers import PreTrainedConfig

from ..architectures import Architecture, pool_architecture, read_config
from ..core.errors import InputError
from .headers import check_header, read_header
from .source import ModelSource


class Fit:
    """What every expert of a base must share with it.

    Args:
        base: The base model.
        experts: Its experts, which say what the base is used as.

    Raises:
        InputError: No known architecture, or experts of several kinds.
    """

    def __init__(self, base: ModelSource, experts: Iterable[ModelSource] = ()) -> None:
        self.base = base
        self._configs = {source: read_config(source.folder, str(source)) for source in (base, *experts)}
        own = self._configs[base]
        others = {str(source): config for source, config in self._configs.items() if source != base}
        found = pool_architecture(own, str(base), others)
        self.architecture: Architecture = found[0]
        self.config: PreTrainedConfig = found[1]
        """The base's, with the class that the pool's towers are of."""
        with torch.device("meta"):
            try:
                self.tower = self.architecture.new_tower(self.config)
                """Has the right names and shapes, and no storage."""
            except InputError as error:
                raise InputError(f"{base}: {error}") from error
            self.complete = self.architecture.complete_model(self.config)
        saved = self.tower.state_dict()
        kept = {name for name, found in self.tower.named_buffers() if name in saved and found.is_floating_point()}
        self.keeps_statistics = bool(kept)
        """Whether the tower has running statistics (BatchNorm)."""
        for name in sorted(kept):
            if not name.endswith(("running_mean", "running_var")):
                raise InputError(f"{base}: '{name}' of its tower is neither trained nor a running statistic")

    def check(self, source: ModelSource) -> None:
        """Whether a model (the base itself, too) has the base's architecture and tensors.

        Raises:
            InputError: It has another architecture, other shapes, or lacks tensors.
        """
        header = read_header(source)
        if source != self.base:
            self.architecture.check_config(self._configs[source], self.config, str(source), str(self.base))
            return check_header(source, header, self.architecture, self.tower)
        wrapped = next((found.key for name, found in header.items() if found.key != name), None)
        if wrapped is not None:
            raise InputError(
                f"{source}: tensor '{wrapped}' has the prefix of a wrapper, so transformers would make it up; "
                f"'hf-mdft pool convert {source} FOLDER' makes a base of it"
            )
        check_header(source, header, self.architecture, self.complete or self.tower, is_base=True)
