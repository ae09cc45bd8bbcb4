"""What an MDFT adapter is, in JSON."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

from peft import PeftConfig

from ..core.errors import InputError, suggest
from ..core.reference import PoolReference, several
from ..core.typed import expect
from ..transforms import TRANSFORMS
from .peft_type import mdft_peft_type


GRANULARITIES = ("task", "layer", "tensor")

STRONG_TRANSFORM = {"name": "tsv"}
"""Phi where a merger or a recipe names none: what measured best. An `MdftConfig` by itself is the plain formula."""


@dataclass
class MdftConfig(PeftConfig):
    """Configuration of [`MdftModel`]: `theta_0 + sum_k lambda_k Phi(theta_k - theta_0)`.

    Args:
        pool: The pool's reference (ids and revisions), or a [`ModelPool`], of which the reference is kept.
        granularity: `"task"`: one coefficient per expert (Task-wise AdaMerging); `"layer"`: one per expert and
            transformer block; `"tensor"`: one per expert and parameter tensor (what AdaMerging calls layer-wise, Yang
            et al. 2024, https://huggingface.co/papers/2310.02575).
        transform: Phi, by name and options.
        init_coefficient: Where every coefficient starts. The default `None` means 1/K, the weight average, which
            needs no choice.
        allow_base_mismatch: Whether the model may have other weights than the pool's base; by default it is refused:
            what comes of it is no merge of the pool.
        tower: Name of the combined part within the model; found when the adapter is made.
        target_modules: Filled in: the modules of the tower.

    Raises:
        InputError: Unknown granularity or transform.
    """

    pool: Any = field(
        default=None, metadata={"help": "Reference of the pool: base and experts, each with id and revision."}
    )
    granularity: str = field(
        default="tensor", metadata={"help": "One coefficient per expert and 'task', 'layer' or 'tensor'."}
    )
    transform: dict[str, Any] | str = field(
        default_factory=lambda: {"name": "identity"},
        metadata={"help": "Function of the task vectors: name and options."},
    )
    init_coefficient: float | None = field(
        default=None, metadata={"help": "Start of every coefficient; the default is 1/K, the weight average."}
    )
    allow_base_mismatch: bool = field(
        default=False, metadata={"help": "Take a model with other weights than the pool's base."}
    )
    tower: str | None = field(default=None, metadata={"help": "Filled in: name of the combined part in the model."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Filled in: modules of the tower."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = mdft_peft_type()
        if hasattr(self.pool, "pinned"):
            self.pool = self.pool.pinned()
        if isinstance(self.pool, PoolReference):
            self.pool = self.pool.to_dict()
        if isinstance(self.pool, dict):
            self.pool.setdefault("tasks", list(self.pool["experts"]))
        if isinstance(self.transform, str):
            self.transform = {"name": self.transform}
        if self.granularity not in GRANULARITIES:
            raise InputError(
                f"adapter: unknown granularity '{self.granularity}': {suggest(str(self.granularity), GRANULARITIES)}"
            )
        TRANSFORMS.build(self.transform)

    @property
    def start(self) -> float:
        """Where every coefficient starts."""
        if self.init_coefficient is not None:
            return self.init_coefficient
        return 1 / sum(len(several(experts)) for experts in self.pool["experts"].values())


def config_for(pool: Any, config: MdftConfig | None = None) -> MdftConfig:
    """A copy of a config for a pool, to train; the default has the transform that measured best.

    Raises:
        InputError: It is no `MdftConfig`.
    """
    found = copy.deepcopy(expect(config, (MdftConfig, NoneType), "config")) or MdftConfig(
        transform=dict(STRONG_TRANSFORM)
    )
    found.pool, found.tower, found.inference_mode = pool.reference(), None, False
    return found
