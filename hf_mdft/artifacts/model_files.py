"""Model files of a result folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoImageProcessor, PreTrainedConfig

from ..architectures import Architecture, architecture_of, read_config
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


def write_tower(
    architecture: Architecture,
    config: PreTrainedConfig,
    base: Path,
    state: Mapping[str, torch.Tensor],
    folder: Path,
) -> None:
    """Write a tower of a config, and the image processor of the model at `base`."""
    architecture.save_tower(config, dict(state), folder)
    AutoImageProcessor.from_pretrained(base, trust_remote_code=False).save_pretrained(folder)


def read_tower(folder: Path) -> tuple[Architecture, PreTrainedConfig, dict[str, torch.Tensor]]:
    """The tower's tensors of a complete model in a folder, and its architecture and config, to write them.

    Raises:
        InputError: It holds no tower of a known architecture.
    """
    config = read_config(folder, str(folder))
    architecture = architecture_of(config, str(folder))
    weights = TowerWeights(ModelSource.resolve(folder), architecture, architecture.new_tower(config))
    return architecture, config, dict(weights.items())
