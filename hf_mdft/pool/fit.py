"""Whether a model was fine-tuned from a base: by its config and the headers of its files, before any weights move."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import torch
from transformers import PreTrainedConfig

from ..architectures import Architecture, pool_architecture, read_config
from ..core.errors import InputError
from .headers import check_classifier, check_header, read_header
from .kinship import check_kinship, warn_of_own_parts
from .lora import Lora, LoraWeights
from .source import ModelSource
from .weights import TowerWeights


class Fit:
    """What every expert of a base must share with it.

    Args:
        base: The base model.
        experts: Its experts, which say what the base is used as.

    Raises:
        InputError: No known architecture, or experts of several kinds.
    """

    def __init__(self, base: ModelSource, experts: Collection[ModelSource] = ()) -> None:
        self.base = base
        own = read_config(base.folder, str(base))
        self.adapters = {source: Lora(source) for source in experts if source.is_adapter}
        """Experts that are LoRA adapters."""
        self.configs = {
            source: self.adapters[source].model_config(own)
            if source in self.adapters
            else read_config(source.folder, str(source))
            for source in experts
        }
        """Configs of the experts."""
        named = {str(source): config for source, config in self.configs.items()}
        found = pool_architecture(own, str(base), named)
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

    @cached_property
    def width(self) -> int | None:
        """Numbers of an image embedding; `None` where a tower without weights cannot tell."""
        shape = self.architecture.sample_shape(self.config)
        try:
            outputs = self.tower.eval()(pixel_values=torch.zeros(1, *shape, device="meta"))
        except Exception:  # whatever a model does that needs numbers
            return None
        return self.architecture.features(outputs).shape[-1]

    @cached_property
    def depths(self) -> dict[str, int]:
        """Depth of every parameter of the tower; see `Architecture.depths`."""
        return self.architecture.depths(self.tower)

    def check(self, source: ModelSource) -> None:
        """Whether a model (the base itself, too) has the base's architecture and tensors.

        Raises:
            InputError: It has another architecture, other shapes, or lacks tensors.
        """
        channels = getattr(self.architecture.tower_config(self.config), "num_channels", 3)
        if channels != 3:
            raise InputError(f"{self.base}: reads images of {channels} channels; pools are of models that read 3")
        if source != self.base:
            self.architecture.check_config(self.configs[source], self.config, str(source), str(self.base))
        if source in self.adapters:
            outside = [] if self.complete is None else list(self.complete.state_dict())
            return self.adapters[source].check(self.architecture, self.tower, outside, self.configs[source])
        header = read_header(source)
        if source != self.base:
            check_header(source, header, self.architecture, self.tower)
            return check_classifier(source, header, self.configs[source])
        wrapped = next((found.key for name, found in header.items() if found.key != name), None)
        if wrapped is not None:
            raise InputError(
                f"{source}: tensor '{wrapped}' has the prefix of a wrapper, so transformers would make it up; "
                f"'hf-mdft pool convert {source} FOLDER' makes a base of it"
            )
        check_header(source, header, self.architecture, self.complete or self.tower, is_base=True)

    def weights(self, source: ModelSource, base: TowerWeights | None, kin: bool) -> TowerWeights | LoraWeights:
        """Tower weights of a model that was checked and is here.

        Args:
            source: The model.
            base: Weights of the base; `None` for itself.
            kin: Whether it must have been fine-tuned from the base.

        Raises:
            InputError: It was not.
        """
        if source in self.adapters:
            if kin:
                self.adapters[source].check_base(self.base)
            return LoraWeights(self.adapters[source], base, self.architecture, self.tower)
        found = TowerWeights(source, self.architecture, self.tower)
        if base is not None:
            warn_of_own_parts(found, base, self.architecture.shared_parts)
            if kin:
                check_kinship(found, base)
        return found
