"""Whether a model was fine-tuned from a base: by its config and the headers of its files, before any weights move."""

from __future__ import annotations

import torch

from ..architectures import Architecture, architecture_of, read_config
from ..core.errors import InputError
from .headers import check_header, read_header
from .source import ModelSource


class Fit:
    """What every expert of a base must share with it.

    Args:
        base: The base model.

    Raises:
        InputError: No known architecture, or one whose towers hold running statistics.
    """

    def __init__(self, base: ModelSource) -> None:
        self.base = base
        self.config = read_config(base.folder, str(base))
        self.architecture: Architecture = architecture_of(self.config, str(base))
        with torch.device("meta"):
            self.tower = self.architecture.new_tower(self.config)
            """Has the right names and shapes, and no storage."""
            self.complete = self.architecture.complete_model(self.config)
        saved = self.tower.state_dict()
        for name, buffer in self.tower.named_buffers():
            if name in saved and buffer.is_floating_point():
                raise InputError(
                    f"{base}: its tower keeps running statistics ('{name}'), and combined running statistics are not "
                    "supported yet; take a base without BatchNorm"
                )

    def check(self, source: ModelSource) -> None:
        """Whether a model (the base itself, too) has the base's architecture and tensors.

        Raises:
            InputError: It has another architecture, other shapes, or lacks tensors.
        """
        header = read_header(source)
        if source != self.base:
            config = read_config(source.folder, str(source))
            self.architecture.check_config(config, self.config, str(source), str(self.base))
            return check_header(source, header, self.architecture, self.tower)
        wrapped = next((found.key for name, found in header.items() if found.key != name), None)
        if wrapped is not None:
            raise InputError(
                f"{source}: tensor '{wrapped}' has the prefix of a wrapper, so transformers would make it up; "
                f"'hf-mdft pool convert {source} FOLDER' makes a base of it"
            )
        check_header(source, header, self.architecture, self.complete or self.tower, is_base=True)
