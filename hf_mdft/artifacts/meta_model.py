"""A meta-model as a folder: the adapter, or a plain model with the coefficients folded in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitInfo, ModelCard
from peft import PeftModel

from ..adapter import MdftConfig
from ..cards import Measured, MetaFacts, meta_card
from ..cards.facts import check_facts
from ..core.errors import InputError
from ..core.reference import PoolReference
from ..core.typed import checked, read
from ..heads import Head, build_head, load_head
from ..pool import ModelPool
from ..tasks import Task
from ..tasks.task import IMAGES, POOL_HEADS
from .adapter_files import load_adapter, read_adapter, read_adapter_config
from .figures import card_figures
from .layout import HEADS, MANIFEST, OWN_HEADS
from .model_files import check_model
from .result import RESULTS, Result, push_result
from .writing import measured_of, write_result


ADAPTER = "default"
"""Name of the adapter that is saved, and that PEFT loads without being told one."""

TRAINED_HEAD = "trained_head"


@dataclass(frozen=True)
class MetaModelParts:
    """A meta-model in memory.

    Args:
        pool: The pool that it is made of.
        model: The model with the adapter.
        tasks: Tasks by name.
        heads: The tasks' own heads.
        trained: Heads that were trained with the coefficients.
        seed: Seed of the run.
        facts: How it was made.
        measured: Accuracy by task.
        average: Average accuracy by model.
    """

    pool: ModelPool
    model: PeftModel
    tasks: Mapping[str, Task]
    heads: Mapping[str, Head]
    trained: Mapping[str, Head]
    seed: int
    facts: MetaFacts
    measured: Mapping[str, Measured]
    average: Mapping[str, float]

    def tower(self) -> torch.nn.Module:
        """The combined tower, by itself; the adapter stays as it is."""
        self._check_adapter()
        return folded_tower(self.model)

    def _check_adapter(self) -> None:
        if self.model.active_adapters != [ADAPTER]:  # else another one's figures would be told of this one
            active = ", ".join(self.model.active_adapters) or "none"
            raise InputError(
                f"the meta-model's adapter is '{ADAPTER}', active is {active}; call set_adapter('{ADAPTER}')"
            )

    def write(self, folder: Path) -> None:
        """Write the adapter (kilobytes), heads that no pool can build, and a card."""
        self._check_adapter()
        options = {task: self._options(task) for task in self.heads}

        def write_files() -> Callable[[], ModelCard]:
            self.model.save_pretrained(folder, save_embedding_layers=False, selected_adapters=[ADAPTER])
            for task, head in self.heads.items():
                if task in self.trained:
                    options[task][TRAINED_HEAD] = _save_head(self.trained[task], folder, HEADS, task)
                if self.tasks[task].head not in (None, *POOL_HEADS):
                    where = OWN_HEADS if task in self.trained else HEADS
                    options[task]["head"] = _save_head(head, folder, where, task)
            return lambda: meta_card(
                self.facts, self.measured, self.average, figures=card_figures(self.facts, (), folder)
            )

        self._write(folder, MetaModel, self.facts, options, write_files)

    def write_folded(self, folder: Path) -> None:
        """Write a plain model with the coefficients folded in, and all tasks' heads; it loads without the experts and
        without this package."""
        # One tower, many classifiers: only its embeddings are the model's own.
        tag = {"pipeline_tag": "image-feature-extraction"} if self.pool.architecture.own_heads else {}
        facts, options = replace(self.facts, **tag), {task: self._options(task) for task in self.heads}

        def write_files() -> Callable[[], ModelCard]:
            self.pool.save_complete(self.tower().state_dict(), None, folder)
            for task, head in self.heads.items():
                options[task]["head"] = _save_head(self.trained.get(task, head), folder, HEADS, task)
            return lambda: meta_card(
                facts, self.measured, self.average, folded=True, figures=card_figures(facts, (), folder)
            )

        self._write(folder, FoldedMetaModel, facts, options, write_files)

    def _options(self, task: str) -> dict[str, Any]:
        """A task without its images."""
        written = self.tasks[task].to_dict(self.heads[task].class_names)
        return {key: value for key, value in written.items() if key not in IMAGES}

    def _write(
        self,
        folder: Path,
        kind: type[Result],
        facts: MetaFacts,
        tasks: dict[str, Any],
        write_files: Callable[[], Callable[[], ModelCard]],
    ) -> None:
        content = {
            "facts": facts, "tasks": tasks, "seed": self.seed, "measured": self.measured, "average": self.average,
        }  # fmt: skip
        mine = {task: (m.accuracy["meta"], m) for task, m in self.measured.items() if "meta" in m.accuracy}
        write_result(folder, kind, content, write_files, mine)


@dataclass(frozen=True)
class _OfAllTasks(Result):
    """A result for all tasks.

    Args:
        facts: How it was made.
        tasks: Tasks by name, without images.
        seed: Seed of the run.
        measured: Accuracy by task.
        average: Average accuracy by model.
    """

    facts: MetaFacts
    tasks: Mapping[str, Task]
    seed: int
    measured: Mapping[str, Measured]
    average: Mapping[str, float]

    @classmethod
    def fields(cls, folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
        """What the manifests of both kinds hold."""
        where, tasks = f"{folder}: {MANIFEST}", {}
        for name, options in _task_options(folder, content).items():
            given = {key: value for key, value in options.items() if key != TRAINED_HEAD}
            tasks[name] = Task.from_dict(given, f"{where}: tasks.{name}", folder=folder, foreign=True)
        facts = read(MetaFacts, content.get("facts"), f"{where}: facts")
        check_facts(facts, where)
        return {
            "facts": facts,
            "tasks": tasks,
            "seed": checked(content.get("seed"), int, f"{where}: seed"),
            "measured": measured_of(content, where),
            "average": checked(content.get("average", {}), dict[str, float], f"{where}: average"),
        }


def _task_options(folder: Path, content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return checked(content.get("tasks"), dict[str, dict[str, Any]], f"{folder}: {MANIFEST}: tasks")


@RESULTS.register("meta_model")
@dataclass(frozen=True)
class MetaModel(_OfAllTasks):
    """An adapter, what its tasks are, and a card.

    Args:
        trained: Files of the heads that were trained with the coefficients, by task.
        pool_reference: The pool that it refers to.
    """

    label = "meta-model"

    trained: Mapping[str, Path]
    pool_reference: PoolReference

    @classmethod
    def read(cls, folder: Path, content: Mapping[str, Any]) -> MetaModel:
        trained = {
            name: folder / HEADS / Path(str(options[TRAINED_HEAD])).name
            for name, options in _task_options(folder, content).items()
            if TRAINED_HEAD in options
        }
        fields, reference = cls.fields(folder, content), read_adapter(folder)
        facts = fields.pop("facts")  # of the pool that the adapter loads, whatever its manifest says
        facts = replace(facts, pool=replace(facts.pool, reference=reference.shown()))
        return cls(folder, **fields, facts=facts, trained=trained, pool_reference=reference)

    def forms(self) -> dict[str, Callable[[Path], None]]:
        return {"folded": lambda target: self.load().write_folded(target)}

    def push(self, repo_id: str, form: str | None = None, **options: Any) -> CommitInfo:
        if form is None:
            refuse_local(self.pool_reference)
        return super().push(repo_id, form, **options)

    def heads(self, tasks: Mapping[str, Task]) -> dict[str, Head]:
        """Heads that were trained with the coefficients, for those of these tasks that have one.

        Raises:
            InputError: One cannot be read, or has other classes than its task.
        """
        found = {}
        for name in self.trained.keys() & tasks.keys():
            found[name] = load_head(self.trained[name])
            if tasks[name].class_names is not None:
                found[name] = found[name].ordered(tasks[name].class_names, f"{self.folder}: its head for '{name}'")
        return found

    def load(self) -> MetaModelParts:
        """The meta-model in memory, with the tasks that it was saved with.

        Raises:
            InputError: An expert is gone or changed, or a head cannot be read.
        """
        pool = ModelPool.from_reference(self.pool_reference)
        heads = {name: build_head(name, task, pool) for name, task in self.tasks.items()}
        return MetaModelParts(
            pool, self.load_model(pool), self.tasks, heads, self.heads(self.tasks), self.seed, self.facts,
            self.measured, self.average,
        )  # fmt: skip

    def load_model(self, pool: ModelPool) -> PeftModel:
        """The model with the adapter."""
        return load_adapter(self.folder, pool)

    def config(self) -> MdftConfig:
        """The adapter's config."""
        return read_adapter_config(self.folder)


@RESULTS.register("folded_meta_model")
@dataclass(frozen=True)
class FoldedMetaModel(_OfAllTasks):
    """A plain model with the heads of all tasks."""

    label = "folded meta-model"

    @classmethod
    def read(cls, folder: Path, content: Mapping[str, Any]) -> FoldedMetaModel:
        check_model(folder)
        return cls(folder, **cls.fields(folder, content))


def push_meta_model(parts: MetaModelParts, repo_id: str, folded: bool = False, **options: Any) -> CommitInfo:
    """Push a meta-model in memory in one commit; `options` as in `hf_mdft.hub.push_folder`.

    Raises:
        InputError: An adapter's pool holds folders of this machine, or the Hub refuses.
    """
    if not folded:
        refuse_local(parts.pool.pinned())
    return push_result(parts.write_folded if folded else parts.write, repo_id, **options)


def folded_tower(model: PeftModel) -> torch.nn.Module:
    """The combined tower of a model with an adapter; the adapter stays as it is."""
    return copy.deepcopy(model).cpu().merge_and_unload().eval()


def _save_head(head: Head, folder: Path, where: str, task: str) -> str:
    (folder / where).mkdir(exist_ok=True)
    head.save(folder / where / f"{task}.safetensors")
    return f"{where}/{task}.safetensors"


def refuse_local(pool: PoolReference) -> None:
    """Refuse to give an adapter away whose pool holds folders of this machine.

    Raises:
        InputError: It does: others could not load it, and would read the folders' paths.
    """
    local = pool.local()
    if local:
        raise InputError(
            f"this adapter refers to folders of this machine ({', '.join(local)}), so others could not load it: push "
            "those models and build the pool from their repos, or push the meta-model folded"
        )
