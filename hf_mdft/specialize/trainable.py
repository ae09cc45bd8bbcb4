"""Which of a tower's weights phase 2 trains."""

from __future__ import annotations

from typing import Literal

from torch import nn

from ..core.errors import InputError


Trainable = Literal["all", "norm"]

NORMS = (
    nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm,
)  # fmt: skip
NORM_NAMES = ("LayerNorm", "GroupNorm", "RMSNorm", "BatchNorm2d")
"""How classes end that models write for themselves (`LlamaRMSNorm`, `ConvNextLayerNorm`)."""


def train_only(tower: nn.Module, which: Trainable) -> None:
    """Freeze everything else.

    Args:
        tower: Tower of the student.
        which: `"all"`, or `"norm"`: scales and shifts of normalisation layers, as in TENT (Wang et al. 2021,
            https://huggingface.co/papers/2006.10726).

    Raises:
        InputError: The tower has no normalisation layer.
    """
    if which == "all":
        return
    tower.requires_grad_(False)
    own = [
        parameter
        for module in tower.modules()
        if isinstance(module, NORMS) or type(module).__name__.endswith(NORM_NAMES)
        for parameter in module.parameters(recurse=False)
    ]
    if not own:
        raise InputError("trainable: the model has no normalisation layer with weights; use 'all'")
    for parameter in own:
        parameter.requires_grad_(True)
