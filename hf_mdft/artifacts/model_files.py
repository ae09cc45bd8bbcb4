"""Model files of a result folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoImageProcessor

from ..architectures import Architecture, architecture_of
from ..architectures.base import read_config
from ..pool import ModelSource
from ..pool.headers import read_header
from ..pool.weights import TowerWeights


def check_model(folder: Path) -> None:
    """Whether a folder's model is there and whole, as far as config and headers show.

    Raises:
        InputError: It is not.
    """
    read_config(folder, str(folder))
    read_header(ModelSource.resolve(folder))


def write_tower(architecture: Architecture, base: Path, state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write a tower and the image processor of the model at `base`."""
    architecture.save_tower(read_config(base, str(base)), dict(state), folder)
    AutoImageProcessor.from_pretrained(base, trust_remote_code=False).save_pretrained(folder)


def read_tower(folder: Path) -> tuple[Architecture, dict[str, torch.Tensor]]:
    """The tower's tensors of a complete model in a folder, and how to write them.

    Raises:
        InputError: It holds no tower of a known architecture.
    """
    config = read_config(folder, str(folder))
    architecture = architecture_of(config, str(folder))
    weights = TowerWeights(ModelSource.resolve(folder), architecture, architecture.new_tower(config))
    return architecture, dict(weights.items())
