"""ModelPool: a base and its experts."""

from __future__ import annotations

import logging
import shutil
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitInfo
from transformers import PreTrainedConfig, PreTrainedModel

from ..architectures.base import ClassHead
from ..architectures.identity import functional_config
from ..cards.licenses import CombinedLicense, combined_license
from ..core.cache import key_of, prepared
from ..core.errors import InputError, known
from ..core.reference import PoolReference, expert_names, several
from ..core.threads import each
from ..hub import push_folder
from ..tasks import Task
from ..transforms import TRANSFORMS
from .download import fetch_all
from .fit import Fit
from .lora import LoraWeights
from .names import check_names, distinct, model_folders
from .published import PublishedPool, read_published, write_published
from .source import PROCESSOR_FILES, ModelSource
from .vectors import FORMAT, TaskVectors, write_transformed
from .weights import TowerWeights


logger = logging.getLogger(__name__)

_OPEN_VECTORS: weakref.WeakValueDictionary[str, TaskVectors] = weakref.WeakValueDictionary()


class ModelPool:
    """A base model theta_0 and experts theta_k fine-tuned from it, each pinned to a revision.

    Every model is checked against the base by its config and the headers of its files before any weights are
    downloaded.

    Args:
        base: The base model.
        experts: Experts by task name, one or several; none (or `None`) for a task that has no expert.
        descriptions: Tasks by name, as far as they are described: what a published pool holds beside its models.
        allow_base_mismatch: Whether to take experts whose weights have nothing in common with the base's; `None` takes
            them too, as of models that were looked at when they were pinned or made.

    Raises:
        InputError: An expert has another architecture, other shapes, or lacks tensors of the base.

    Experts have names, by which methods take them: that of their task where they are its only one, else `task/1`,
    `task/2`, ...

    Example:

        >>> pool = ModelPool.from_pretrained(
        ...     "openai/clip-vit-base-patch32", {"mnist": "tanganke/clip-vit-base-patch32_mnist@main"}
        ... )
        >>> pool.push_to_hub("me/my-pool")
        >>> pool = ModelPool.from_pretrained("me/my-pool")
    """

    def __init__(
        self,
        base: ModelSource,
        experts: Mapping[str, Sequence[ModelSource] | ModelSource | None],
        descriptions: Mapping[str, Task] | None = None,
        allow_base_mismatch: bool | None = None,
    ) -> None:
        self.base = base
        self.by_task = {task: distinct(task, several(sources)) for task, sources in experts.items()}
        self.tasks = list(self.by_task)
        self.experts = {
            name: source
            for task, sources in self.by_task.items()
            for name, source in zip(expert_names(task, len(sources)), sources, strict=True)
        }
        """Experts by their names, in the order of coefficients."""
        self.descriptions = dict(descriptions or {})
        if not self.experts:
            raise InputError("the pool has no expert; give at least one under pool.experts")
        check_names(base, self.by_task)
        fit = self._fit = Fit(base, list(self.experts.values()))
        self.config, self.architecture, self.keeps_statistics = fit.config, fit.architecture, fit.keeps_statistics
        each(self._fit.check, self.sources())
        self._expert_weights: dict[str | None, TowerWeights | LoraWeights] = {}
        self.allow_base_mismatch = allow_base_mismatch

    @classmethod
    def from_pretrained(
        cls,
        base: str | Path,
        experts: Mapping[str, str | Path | Sequence[str | Path] | None] | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        allow_base_mismatch: bool = False,
    ) -> ModelPool:
        """Pool from folders or Hub ids (`"owner/name"`, `"owner/name@revision"`).

        Weights are downloaded when they are first needed, after all headers have been checked.

        Args:
            base: The base model; or, without `experts`, a pool that `push_to_hub` or `save_pretrained` has written.
            experts: By task: one, or several in a list, or as a pattern of folders (`runs/mnist/*`).
            revision: Revision of `base`: a branch, tag or commit.
            token: For private and gated repos, as in transformers.
            allow_base_mismatch: Whether to take experts whose weights have nothing in common with the base's.

        Raises:
            InputError: A model cannot be found, read, or does not fit the base; the message names it.
        """
        if experts is None:
            published = read_published(base, revision, token)
            return cls(*_found(published.reference, token), published.tasks, allow_base_mismatch)
        if not isinstance(experts, Mapping):
            raise InputError(f"experts must be a mapping from task to model, got {type(experts).__name__}")
        listed = {task: model_folders(several(specs), f"expert of '{task}'") for task, specs in experts.items()}
        specs = [(base, revision), *((spec, None) for specs in listed.values() for spec in specs)]
        found = iter(each(lambda spec: ModelSource.resolve(spec[0], token, spec[1], adapters=spec[0] != base), specs))
        base, sources = next(found), {task: [next(found) for _ in specs] for task, specs in listed.items()}
        return cls(base, sources, allow_base_mismatch=allow_base_mismatch)

    @classmethod
    def from_reference(
        cls, reference: PoolReference | Mapping[str, Any], *, token: str | bool | None = None
    ) -> ModelPool:
        """The pool that a reference (or its JSON form) pins, at the same revisions.

        Raises:
            InputError: A model is gone or has changed; the message names it.
        """
        if not isinstance(reference, PoolReference):
            reference = PoolReference.from_dict(reference, "the pool's reference")
        return cls(*_found(reference, token))

    def __repr__(self) -> str:
        return f"ModelPool({self.base}, {self.tasks})"

    def pinned(self) -> PoolReference:
        """Ids and revisions, from which the same pool is found again."""
        experts = {task: tuple(source.reference for source in sources) for task, sources in self.by_task.items()}
        return PoolReference(self.base.reference, experts)

    def reference(self) -> dict[str, Any]:
        """JSON form of `pinned()`, as `MdftConfig` keeps it."""
        return self.pinned().to_dict()

    def sources(self) -> list[ModelSource]:
        """Base and experts."""
        return [self.base, *self.experts.values()]

    def experts_of(self, task: str) -> list[str]:
        """Names of a task's experts; none for a task without one."""
        return expert_names(task, n) if (n := len(self.by_task[known(task, self.by_task, "task")])) else []

    def license(self, others: Iterable[ModelSource] = ()) -> CombinedLicense:
        """The strictest license that base and experts (and others that teach them) state, and problems of combining
        them."""
        return combined_license([(source.reference.name, source.license) for source in [*self.sources(), *others]])

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the pool as a folder that `from_pretrained` reads: ids, pinned revisions, tasks, and a card.

        Raises:
            InputError: A model is a folder of this machine.
        """
        write_published(PublishedPool(self.pinned(), self.descriptions), self.license(), Path(folder))

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> CommitInfo:
        """Push the pool (its manifest and card, no weights) in one commit; see `hf_mdft.hub.push_folder`.

        Raises:
            InputError: A model is a folder of this machine, or the Hub refuses.
        """
        return push_folder(self.save_pretrained, repo_id, **kwargs)

    def with_experts(self, experts: Mapping[str, str | Path]) -> ModelPool:
        """A pool in which some tasks' experts are replaced by one each (or given to tasks that had none)."""
        new = {task: ModelSource.resolve(spec, adapters=True) for task, spec in experts.items()}
        return ModelPool(self.base, self.by_task | new, self.descriptions, self.allow_base_mismatch or None)

    def identity(self, expert: str | None = None) -> str:
        """Changes with everything that an expert's (for `None`, the base's) tower computes with: its weights (of an
        adapter, the base's too), and the config, which is the base's."""
        source = self.base if expert is None else self.experts[expert]
        also = [self.config.architectures] if self.architecture.own_heads else []
        also += [self.base.reference.revision] if source.is_adapter else []
        return key_of(source.reference.revision, functional_config(self.base.folder), *also)

    def fetch(self) -> None:
        """Download all weights that are not here yet.

        Raises:
            InputError: They do not fit on the disk, or cannot be had.
        """
        fetch_all(self.sources())

    def base_weights(self) -> TowerWeights:
        """Tower weights of the base alone; experts that are not here stay where they are."""
        self.base.fetch()
        return TowerWeights(self.base, self.architecture, self._fit.tower)

    def expert_config(self, expert: str) -> PreTrainedConfig:
        """Config of an expert; of an adapter, that of the model that it makes of the base."""
        return self._fit.configs[self.experts[expert]]

    def weights(self, expert: str | None) -> TowerWeights | LoraWeights:
        """Tower weights of an expert, or of the base for `None`."""
        if expert not in self._expert_weights:
            source = self.base if expert is None else self.experts[known(expert, self.experts, "expert")]
            self.fetch()
            kin = self.allow_base_mismatch is False
            self._expert_weights[expert] = self._fit.weights(source, expert and self.weights(None), kin)
        return self._expert_weights[expert]

    def tower(self, expert: str | None = None) -> PreTrainedModel:
        """A fresh fp32 tower in evaluation mode: an expert, or the base for `None`."""
        return self._fill(self.weights(expert))

    def load_tower(self, source: ModelSource) -> PreTrainedModel:
        """A fresh fp32 tower from another model of the same architecture and shapes."""
        source.fetch()
        return self._fill(TowerWeights(source, self.architecture, self._fit.tower))

    def _fill(self, weights: TowerWeights) -> PreTrainedModel:
        tower = self.architecture.tower_of(self.config, dict(weights.items()))
        tower.name_or_path = weights.source.reference.id
        return tower.eval()

    def save_complete(self, tower_state: dict[str, torch.Tensor], head: ClassHead | None, folder: Path) -> None:
        """Write the base with other tower weights as a complete model: weights, config, processor, tokenizer.

        Args:
            tower_state: State dict of the tower.
            head: Head of the task; none writes what serves all tasks at once.
            folder: Where the model is written; made if need be.
        """
        self.base.fetch()
        folder.mkdir(parents=True, exist_ok=True)
        self.architecture.save_complete(self.base.folder, self.config, tower_state, head, folder)
        for file in (file for pattern in PROCESSOR_FILES for file in self.base.folder.glob(pattern)):
            shutil.copyfile(file, folder / file.name)

    def vectors(self, transform: str | Mapping[str, Any] = "identity") -> TaskVectors:
        """Phi of all task vectors, prepared once and then memory-mapped from the cache.

        Args:
            transform: Name or `{"name": ..., **options}` of a registered transform.
        """
        if self.allow_base_mismatch is False:  # also where the cache has their vectors
            for expert in self.experts:
                self.weights(expert)
        phi, depths = TRANSFORMS.build(transform), self._relative_depths()
        key = key_of("task vectors", FORMAT, [s.reference.revision for s in self.sources()], phi.key(), depths)
        vectors = _OPEN_VECTORS.get(key)
        if vectors is None:

            def make(folder: Path) -> None:
                write_transformed(phi, self._raw_vectors, depths, folder, list(self.experts))

            vectors = _OPEN_VECTORS[key] = TaskVectors(prepared("vectors", key, make), list(self.experts))
        return vectors

    @property
    def width(self) -> int | None:
        """Numbers of an image embedding, where they are known."""
        return self._fit.width

    def depths(self) -> dict[str, int]:
        """Depth of every parameter of the tower; see `Architecture.depths`."""
        return self._fit.depths

    def _relative_depths(self) -> dict[str, float]:
        """How deep every parameter lies: from 0 (embeddings) to 1 (behind the last block)."""
        depths = self.depths()
        last = max(depths.values()) + 1
        return {name: (last if depth < 0 else depth) / last for name, depth in depths.items()}

    def _raw_vectors(self) -> Iterator[tuple[str, torch.Tensor]]:
        experts = [self.weights(expert) for expert in self.experts]
        for name, start in self.weights(None).parameters():
            yield name, torch.stack([weights.tensor(name) - start for weights in experts])


def _found(reference: PoolReference, token: str | bool | None) -> tuple[ModelSource, dict[str, list[ModelSource]]]:
    """Base and experts that a reference pins."""
    pinned = [reference.base, *(model for models in reference.experts.values() for model in models)]
    found = iter(each(lambda model: ModelSource.from_reference(model, token, adapters=True), pinned))
    return next(found), {task: [next(found) for _ in models] for task, models in reference.experts.items()}
