"""ModelPool: a base and its experts."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..architectures import Architecture, architecture_of
from ..architectures.base import read_config
from ..cache import key_of, prepared
from ..errors import InputError
from ..transforms import TRANSFORMS
from .sources import PROCESSOR_FILES, ModelSource
from .vectors import TaskVectors, write_vectors
from .weights import TowerWeights


_OPEN_VECTORS: weakref.WeakValueDictionary[str, TaskVectors] = weakref.WeakValueDictionary()


class ModelPool:
    """A base model theta_0 and experts theta_k fine-tuned from it, each pinned to a revision.

    Args:
        base: The base model.
        experts: Expert by task name; `None` for a task that has no expert.

    Raises:
        InputError: An expert has another architecture, other shapes, or lacks tensors of the base.

    Example:

        >>> pool = ModelPool.from_pretrained(
        ...     "openai/clip-vit-base-patch32", {"mnist": "tanganke/clip-vit-base-patch32_mnist@main"}
        ... )
    """

    def __init__(self, base: ModelSource, experts: Mapping[str, ModelSource | None]) -> None:
        self.base = base
        self.tasks = list(experts)
        self.experts = {task: source for task, source in experts.items() if source is not None}
        if not self.experts:
            raise InputError("the pool has no expert; give at least one under pool.experts")
        self.config = read_config(base.folder, str(base))
        self.architecture: Architecture = architecture_of(self.config, str(base))
        self.base_weights = self._weights(base)
        self._expert_weights = {}
        for task, source in self.experts.items():
            self._check_config(source)
            self._expert_weights[task] = self._weights(source)

    @classmethod
    def from_pretrained(
        cls,
        base: str | Path,
        experts: Mapping[str, str | Path | None],
        *,
        token: str | bool | None = None,
    ) -> ModelPool:
        """Pool from folders or Hub ids (`"owner/name"`, `"owner/name@revision"`).

        Args:
            token: For private and gated repos, as in transformers.

        Raises:
            InputError: A model cannot be found, read, or does not fit the base; the message names it.
        """
        return cls(
            ModelSource.resolve(base, token),
            {task: None if spec is None else ModelSource.resolve(spec, token) for task, spec in experts.items()},
        )

    @classmethod
    def from_reference(cls, reference: Mapping[str, Any], *, token: str | bool | None = None) -> ModelPool:
        """The pool that `reference()` described, at the same revisions.

        Raises:
            InputError: A model is gone or has changed; the message names it.
        """
        experts = [(task, reference["experts"][task]) for task in reference["tasks"]]
        return cls(
            ModelSource.from_reference(reference["base"], token),
            {task: None if ref is None else ModelSource.from_reference(ref, token) for task, ref in experts},
        )

    def reference(self) -> dict[str, Any]:
        """JSON form: ids and revisions, from which the same pool is found again.

        The order of the tasks is the order of coefficients, and is stored by itself: PEFT sorts the keys of what it
        saves.
        """
        experts = {task: self.experts[task].reference() if task in self.experts else None for task in self.tasks}
        return {"base": self.base.reference(), "experts": experts, "tasks": self.tasks}

    def with_experts(self, experts: Mapping[str, str | Path]) -> ModelPool:
        """A pool in which some experts are replaced (or given to tasks that had none)."""
        sources = {task: self.experts.get(task) for task in self.tasks}
        sources.update({task: ModelSource.resolve(spec) for task, spec in experts.items()})
        return ModelPool(self.base, sources)

    @cached_property
    def _empty_tower(self) -> PreTrainedModel:
        with torch.device("meta"):
            return self.architecture.new_tower(self.config)

    def _weights(self, source: ModelSource) -> TowerWeights:
        return TowerWeights(source, self.architecture, self._empty_tower)

    def _check_config(self, source: ModelSource) -> None:
        config = read_config(source.folder, str(source))
        if config.model_type not in self.architecture.model_types:
            raise InputError(
                f"{source}: model type '{config.model_type}' does not fit the base {self.base} "
                f"('{self.config.model_type}'); an expert must be fine-tuned from the pool's base"
            )
        mine, theirs = self.architecture.tower_config(self.config), self.architecture.tower_config(config)
        for key in self.architecture.must_agree:
            if getattr(mine, key, None) != getattr(theirs, key, None):
                raise InputError(
                    f"{source}: {key} is {getattr(theirs, key, None)}, the base {self.base} has "
                    f"{getattr(mine, key, None)}; an expert must be fine-tuned from the pool's base"
                )

    def weights(self, task: str | None) -> TowerWeights:
        """Tower weights of a task's expert, or of the base for `None`."""
        return self.base_weights if task is None else self._expert_weights[task]

    def tower(self, task: str | None = None) -> PreTrainedModel:
        """A fresh fp32 tower in evaluation mode: a task's expert, or the base for `None`."""
        return self._fill(self.weights(task))

    def load_tower(self, source: ModelSource) -> PreTrainedModel:
        """A fresh fp32 tower from another model of the same architecture and shapes."""
        return self._fill(self._weights(source))

    def _fill(self, weights: TowerWeights) -> PreTrainedModel:
        tower = self.architecture.new_tower(self.config).to(torch.float32)
        tower.load_state_dict(dict(weights.items()), strict=False)
        tower.name_or_path = weights.source.id
        return tower.eval()

    def save_complete(self, tower_state: dict[str, torch.Tensor], head: nn.Module, folder: Path) -> None:
        """Write the base with other tower weights as a complete model: weights, config, processor, tokenizer."""
        self.architecture.save_complete(self.base.folder, tower_state, head, folder)
        for pattern in PROCESSOR_FILES:
            for file in self.base.folder.glob(pattern):
                shutil.copyfile(file, folder / file.name)

    def vectors(self, transform: str | Mapping[str, Any] = "identity") -> TaskVectors:
        """Phi of all task vectors, prepared once and then memory-mapped from the cache.

        Args:
            transform: Name or `{"name": ..., **options}` of a registered transform.
        """
        spec = {"name": transform} if isinstance(transform, str) else dict(transform)
        phi = TRANSFORMS.build(spec)
        sources = [self.base, *self.experts.values()]
        key = key_of("task vectors 1", [source.revision for source in sources], spec)
        vectors = _OPEN_VECTORS.get(key)
        if vectors is None:

            def make(folder: Path) -> None:
                write_vectors(((name, phi(name, stack)) for name, stack in self._raw_vectors()), folder)

            folder = prepared("vectors", key, make)
            vectors = _OPEN_VECTORS[key] = TaskVectors(folder, list(self.experts))
        return vectors

    def _raw_vectors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, start in self.base_weights.items():
            yield name, torch.stack([weights.tensor(name) - start for weights in self._expert_weights.values()])
