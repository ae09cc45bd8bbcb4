"""Model files of a result folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import PreTrainedConfig

from ..architectures import Architecture, architecture_of, read_config
from ..pool import ModelSource
from ..pool.headers import check_header, read_header
from ..pool.weights import TowerWeights
from ..tasks import Preprocessor


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
    Preprocessor(base, str(base)).processor.save_pretrained(folder)


def read_tower(folder: Path) -> tuple[Architecture, PreTrainedConfig, dict[str, torch.Tensor]]:
    """The tower's tensors of a complete model in a folder, and its architecture and config, to write them.

    Raises:
        InputError: It holds no tower of a known architecture.
    """
    config = read_config(folder, str(folder))
    architecture = architecture_of(config, str(folder))
    source = ModelSource.resolve(folder)
    with torch.device("meta"):
        tower = architecture.new_tower(config)
    check_header(source, read_header(source), architecture, tower, is_base=True)
    weights = TowerWeights(source, architecture, tower)
    return architecture, config, dict(weights.items())
