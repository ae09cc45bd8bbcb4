"""MetaMerger: the face of the package. Orchestration, no maths."""

from __future__ import annotations

import copy
import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitInfo
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import set_seed
from transformers.trainer_utils import TrainOutput

from .adapter import STRONG_TRANSFORM, MdftConfig
from .artifacts.provenance import dataset_options, recipe_of
from .artifacts.saving import (
    ADAPTER_FILES,
    HEAD_FOLDERS,
    RESULT_FILE,
    TRAINED_HEAD,
    coefficient_table,
    meta_facts,
    read_adapter,
    refuse_local,
    save_meta,
)
from .core.errors import InputError, suggest
from .core.versions import versions
from .evaluation import (
    BASELINES,
    Report,
    accuracy,
    average_p_value,
    combined_tower,
    mcnemar,
    paired_interval,
    predict,
)
from .heads import TEMPLATES, Head, build_head, load_head
from .hub import push_folder
from .meta import MdftTrainer, MdftTrainingArguments, resume_key
from .pool import ModelPool
from .pool.sources import fetch_files
from .specialize import Specialist, SpecializeArguments, specialize_in_rounds
from .tasks import Images, LabelledImages, Preprocessor, Task, read_labelled, read_unlabelled
from .trainers import resumable


class MetaMerger:
    """A pool, its tasks, and what is made of them without labels.

    Args:
        pool: Base and experts.
        tasks: By the names of the pool's experts; a task without an expert is adapted to as well.
        config: Of the adapter; its pool is filled in. The default takes TSV as Phi, which measured best.
        seed: Of everything random.

    Raises:
        InputError: A task has no entry in the pool.

    Example:

        >>> merger = MetaMerger(pool, tasks={"mnist": Task(unlabelled=images)})
        >>> merger.fit()
        >>> specialists = merger.specialize()
        >>> print(merger.evaluate())
    """

    def __init__(
        self, pool: ModelPool, tasks: Mapping[str, Task], config: MdftConfig | None = None, seed: int = 0
    ) -> None:
        for task in tasks:
            if task not in pool.tasks:
                raise InputError(f"task '{task}' is not in the pool: {suggest(task, pool.tasks)}")
        self.pool = pool
        self.tasks = dict(tasks)
        self.config = copy.deepcopy(config) or MdftConfig(transform=dict(STRONG_TRANSFORM))
        self.config.pool, self.config.tower, self.config.inference_mode = pool.reference(), None, False
        self.seed = seed
        self.preprocessor = Preprocessor(pool.base.folder, str(pool.base))
        self.model: PeftModel | None = None
        self.specialists: dict[str, Specialist] = {}
        self.rounds: list[dict[str, Specialist]] = []
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.timing: dict[str, float] = {}
        self._facts: dict[str, Any] = {}
        self._heads: dict[str, Head] = {}
        self._meta_heads: dict[str, Head] = {}
        self._images: dict[str, Images] = {}
        self._fit_args: MdftTrainingArguments | None = None
        self._specialize_args: SpecializeArguments | None = None

    def __repr__(self) -> str:
        return f"MetaMerger({self.pool!r}, tasks={list(self.tasks)}, fitted={self.model is not None})"

    def variant(
        self,
        config: MdftConfig | None = None,
        pool: ModelPool | None = None,
        tasks: list[str] | None = None,
    ) -> MetaMerger:
        """Another merger with the same images and heads: for another adapter, another pool, or some of the tasks."""
        names = tasks or list(self.tasks)
        other = MetaMerger(pool or self.pool, {n: self.tasks[n] for n in names}, config or self.config, self.seed)
        other._heads = {name: self.head(name) for name in names}
        other._images = {name: images for name, images in self._images.items() if name in names}
        return other

    def restrict(self, count: int | None) -> None:
        """Use no more than `count` unlabelled images of each task from now on, chosen by the seed; `None` is all."""
        self._images = {task: self.unlabelled(task).sample(count, self.seed) for task in self.tasks}

    # What the stages share

    def head(self, task: str) -> Head:
        """The task's head, built the first time."""
        if task not in self._heads:
            self._heads[task] = build_head(task, self.tasks[task], self.pool)
        return self._heads[task].cpu()

    def meta_head(self, task: str) -> Head:
        """The head that the meta-model uses for a task: trained with it where `train_heads` was on."""
        return self._meta_heads.get(task) or self.head(task)

    def unlabelled(self, task: str) -> Images:
        """The task's unlabelled images, read the first time."""
        if task not in self._images:
            self._images[task] = read_unlabelled(task, self.tasks[task], self.preprocessor)
        return self._images[task]

    def labelled(self, task: str) -> LabelledImages | None:
        """The task's evaluation images and labels, where it has any."""
        if self.tasks[task].evaluation is None:
            return None
        return read_labelled(task, self.tasks[task], self.head(task).class_names, self.preprocessor)

    def meta_tower(self) -> nn.Module:
        """The meta-model folded into a plain tower; the adapter stays as it is.

        Raises:
            InputError: There is no meta-model yet.
        """
        if self.model is None:
            raise InputError("there is no meta-model yet: call fit() first")
        return copy.deepcopy(self.model).cpu().merge_and_unload().eval()

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timing[stage] = self.timing.get(stage, 0.0) + time.perf_counter() - start

    # Phase 1

    def fit(self, args: MdftTrainingArguments | None = None) -> TrainOutput:
        """Learn the coefficients (and heads) on the unlabelled images of all tasks; labels are never read.

        With `max_steps=0` the coefficients stay at their start: a static merge.

        A run that was interrupted goes on from its last checkpoint in `args.output_dir`.

        Raises:
            InputError: A task's images or head cannot be had.
        """
        args, self._facts = copy.copy(args) if args else MdftTrainingArguments(seed=self.seed), {}
        with self._timed("prepare"):
            with args.main_process_first(desc="images and heads"):
                images = {task: self.unlabelled(task) for task in self.tasks}
                heads = {task: self.head(task) for task in self.tasks}
                checkpoint = resumable(Path(args.output_dir), resume_key(self.pool, self.config, heads, images, args))
        with self._timed("meta"):
            set_seed(args.seed)
            self.model = get_peft_model(self.pool.tower(), copy.deepcopy(self.config))
            self.history["meta"], self._meta_heads, self._fit_args = [], {}, args
            if args.max_steps == 0:
                return TrainOutput(0, 0.0, {})
            trainer = MdftTrainer(self.model, args, train_dataset=images, heads=heads, pool=self.pool)
            output = trainer.train(resume_from_checkpoint=checkpoint)
        self.model = trainer.accelerator.unwrap_model(trainer.model).cpu()
        self.pool.vectors(self.config.transform).release()
        self._meta_heads = {task: head.cpu().requires_grad_(False) for task, head in trainer.trained_heads.items()}
        self.history["meta"] = trainer.state.log_history
        return output

    # Phase 2

    def specialize(
        self, args: SpecializeArguments | None = None, tasks: list[str] | None = None
    ) -> dict[str, Specialist]:
        """Make a specialist of every task; labels are never read.

        In further rounds (`args.rounds`), specialists that the gate chose replace their experts in the pool, a new
        meta-model is built, and the loop goes on until the gate finds nothing.

        Args:
            args: Of phase 2.
            tasks: The default is all.

        Returns:
            By task; a specialist holds the expert where no improvement was shown.
        """
        args = self._specialize_args = args or SpecializeArguments(seed=self.seed)
        todo, self.rounds = list(tasks or self.tasks), []
        for task in todo:  # what an earlier call found must not stand in for a specialist that this one refuses
            self.specialists.pop(task, None)
            self.timing.pop(f"specialist {task}", None)
        if args.rounds:
            rounds = specialize_in_rounds(
                pool=self.pool,
                meta=self.meta_tower(),
                heads=self.head,
                images=self.unlabelled,
                args=args,
                tasks=todo,
                next_meta=self._next_meta,
                timed=self._timed,
            )
            self.rounds = [{**self.specialists, **held} for held in rounds]
            self.specialists.update(rounds[-1])
        for task, specialist in self.specialists.items():
            specialist.origin = self.pool
            self.history[task] = specialist.history
        self._tell_specialists()
        return {task: self.specialists[task] for task in tasks or self.tasks if task in self.specialists}

    def _next_meta(self, pool: ModelPool, folder: Path) -> nn.Module:
        merger = self.variant(pool=pool)
        fit_args = copy.copy(self._fit_args) or MdftTrainingArguments(seed=self.seed)
        fit_args.output_dir = str(folder)
        merger.fit(fit_args)
        return merger.meta_tower()

    # Evaluation

    def evaluate(self, peers: Mapping[str, MetaMerger] | None = None) -> Report:
        """Accuracy of base, experts, baselines, meta-model and specialists, for tasks with evaluation images.

        The only method that reads labels.

        Args:
            peers: Further meta-models of the same tasks, by the name that they have in the report.
        """
        start = time.perf_counter()
        data = {task: found for task in self.tasks if (found := self.labelled(task)) is not None}
        predictions: dict[str, dict[str, torch.Tensor]] = {}

        def measure(model: str, tower_of: Any, tasks: list[str], head_of: Any = self.head) -> None:
            predictions[model] = {
                task: predict(
                    tower_of(task), self.pool.architecture, head_of(task), data[task].images, desc=f"{model} {task}"
                )
                for task in tasks
            }

        for name, tower, head_of in self._shared_towers(peers or {}):
            measure(name, lambda _, tower=tower: tower, list(data), head_of)
        measure("expert", self.pool.tower, [task for task in data if task in self.pool.experts])
        made = [task for task in data if task in self.specialists]
        if made:
            measure("specialist_ungated", lambda task: self.specialists[task].tower(gated=False), made)
            fallback = {**predictions.get("meta", {}), **predictions["expert"]}
            for number, kept in enumerate(self.rounds[:-1], start=1):
                measure(f"specialist_round_{number}", lambda task, kept=kept: kept[task].tower(), made)
            predictions["specialist"] = {
                task: (predictions["specialist_ungated"] if self.specialists[task].improved else fallback)[task]
                for task in made
            }
        self.timing["evaluate"] = time.perf_counter() - start
        overlap = {task: share for task in data if (share := self._overlap(task, data[task])) is not None}
        report = self._report(data, predictions, overlap)
        self._tell_accuracy(report, data, overlap)
        return report

    def _shared_towers(self, peers: Mapping[str, MetaMerger]) -> Iterator[tuple[str, nn.Module, Any]]:
        """Name, tower and the heads that go with it."""
        yield "base", self.pool.tower(), self.head
        for name, coefficient in BASELINES.items():
            yield name, combined_tower(self.pool, coefficient), self.head
        mergers = {**peers, **({"meta": self} if self.model is not None else {})}
        for name, merger in mergers.items():
            yield name, merger.meta_tower(), merger.meta_head

    def _report(
        self,
        data: dict[str, LabelledImages],
        predictions: dict[str, dict[str, torch.Tensor]],
        overlap: dict[str, float],
    ) -> Report:
        report = Report(list(self.tasks))
        for model, by_task in predictions.items():
            report.add(model, {task: accuracy(found, data[task].labels) for task, found in by_task.items()})
        for task in predictions.get("specialist_ungated", {}):
            if task in predictions["expert"]:
                labels = data[task].labels
                ours, theirs = predictions["specialist_ungated"][task] == labels, predictions["expert"][task] == labels
                report.comparison[task] = {
                    "difference": (ours.float().mean() - theirs.float().mean()).item(),
                    "p_value": mcnemar(ours, theirs),
                    "images": len(labels),
                    "transductive": overlap.get(task, 0.0) > 0.5,
                }
        pairs = [task for task in predictions.get("specialist", {}) if task in predictions["expert"]]
        if pairs:
            kept, experts = (
                {task: predictions[model][task] == data[task].labels for task in pairs}
                for model in ("specialist", "expert")
            )
            difference, low, high = paired_interval(kept, experts)
            p_value = average_p_value(kept, experts)
            report.overall = {"difference": difference, "low": low, "high": high, "p_value": p_value}
        report.gate = {task: specialist.decision.to_dict() for task, specialist in self.specialists.items()}
        if self.model is not None:
            report.coefficients = coefficient_table(self.model, self.pool)
        report.history, report.timing_s = self.history, self.timing
        report.pool, report.versions, report.seed = self.pool.reference(), versions(), self.seed
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        report.peak_memory_bytes = peak if sys.platform == "darwin" else peak * 1024
        return report

    def _overlap(self, task: str, data: LabelledImages) -> float | None:
        """Share of the evaluation images that is among the unlabelled ones; none where nothing was learned from them
        here, so that there is nothing to compare with."""
        if self.model is None or self.tasks[task].unlabelled is None:
            return None
        if data.images.key == self.unlabelled(task).key:
            return 1.0
        measured, seen = data.images.digests(), self.unlabelled(task).digests()
        return len(measured & seen) / len(measured)

    # What cards tell

    def _card_facts(self) -> dict[str, Any]:
        """Of the meta-model."""
        saved = self._facts
        before = saved.get("datasets", {})
        specs = {name: dataset_options(task.unlabelled) or before.get(name) for name, task in self.tasks.items()}
        facts = meta_facts(self.model, self.pool, self.history.get("meta") or [], self._recipe(saved.get("recipe")))
        if self._fit_args is None:  # it was loaded: only its makers knew how it was trained
            facts |= {name: saved[name] for name in ("history", "kept", "versions") if name in saved}
        measured = {name: saved[name] for name in ("accuracy", "images", "overlap", "evaluations") if name in saved}
        return {**facts, **measured, "tasks": list(self.tasks), "datasets": specs}

    def _recipe(self, saved: dict[str, Any] | None) -> dict[str, Any] | None:
        """In full; of a meta-model that was loaded, its own recipe with what was done since."""
        if self._fit_args is None and saved is None:
            return None
        heads = {task: self.head(task) for task in self.tasks}
        made = recipe_of(self.pool, self.tasks, heads, self.config, self._fit_args, self._specialize_args, self.seed)
        if self._fit_args is None:
            given = {name: made["tasks"][name] for name, task in self.tasks.items() if task.unlabelled is not None}
            made = {**saved, **made, "tasks": {**saved.get("tasks", {}), **given}}
        return made

    def _tell_specialists(self) -> None:
        """Give every specialist what its card tells."""
        shared = self._card_facts()
        for task, specialist in self.specialists.items():
            spec = self.tasks[task]
            templates = spec.templates if isinstance(spec.templates, list) else TEMPLATES.get(spec.templates)
            specialist.facts = {
                **specialist.facts,
                **{name: shared[name] for name in ("license", "license_problems", "pipeline_tag", "coefficients")},
                "recipe": shared["recipe"],
                "versions": shared["versions"],
                "history": {**shared["history"], "specialist": specialist.history},
                "unlabelled": shared["datasets"][task],
                "template": templates[0] if templates else None,
            }

    def _tell_accuracy(self, report: Report, data: dict[str, LabelledImages], overlap: dict[str, float]) -> None:
        """Tell cards what was measured."""
        evaluations = {task: dataset_options(self.tasks[task].evaluation) for task in data}
        self._facts |= {
            "accuracy": report.accuracy,
            "images": {task: len(found.labels) for task, found in data.items()},
            "overlap": overlap,
            "evaluations": evaluations,
        }
        for task in self.specialists.keys() & data.keys():
            shown = ("base", "expert", "meta", "specialist_ungated", "specialist")
            self.specialists[task].facts |= {
                "accuracy": {m: report.accuracy[m][task] for m in shown if task in report.accuracy.get(m, {})},
                "images": self._facts["images"][task],
                "overlap": overlap.get(task),
                "evaluation": evaluations[task],
                "p_value": report.comparison.get(task, {}).get("p_value"),
                "difference": report.comparison.get(task, {}).get("difference"),
            }

    # Results

    def save_pretrained(self, folder: str | Path, *, folded: bool = False) -> None:
        """Write the meta-model: the adapter (kilobytes), what its tasks are, and a model card.

        Args:
            folder: Made if need be.
            folded: Write a plain model with the coefficients folded in, and the tasks' heads, instead of the adapter;
                it loads without the experts and without this package.

        Raises:
            InputError: There is no meta-model yet.
        """
        tower = self.meta_tower() if folded else None
        if self.model is None:
            raise InputError("there is no meta-model yet: call fit() first")
        heads = {name: self.head(name) for name in self.tasks}
        tasks = {name: _jsonable(task, heads[name]) for name, task in self.tasks.items()}
        facts = self._card_facts()
        save_meta(Path(folder), self.model, self.pool, heads, tasks, self.seed, facts, self._meta_heads, tower)

    def push_to_hub(self, repo_id: str, *, folded: bool = False, **kwargs: Any) -> CommitInfo:
        """Push the meta-model in one commit.

        Args:
            repo_id: `"owner/name"`.
            folded: As in `save_pretrained`.
            kwargs: See `hf_mdft.hub.push_folder`.
        """
        if not folded:
            refuse_local(self.pool.reference())
        return push_folder(lambda folder: self.save_pretrained(folder, folded=folded), repo_id, **kwargs)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        tasks: Mapping[str, Task] | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> MetaMerger:
        """A meta-model from a folder or the Hub, with its pool at the pinned revisions.

        Args:
            source: What `save_pretrained` or `push_to_hub` has written.
            tasks: With images, to evaluate or to specialise (`fit` starts afresh); the default has class names and
                templates only.
            revision, token: As in transformers.

        Raises:
            InputError: It is no meta-model, or an expert is gone or changed.
        """
        folder = Path(source)
        if not folder.is_dir():
            repo_id, _, named = str(source).partition("@")
            folder, _ = fetch_files(
                repo_id,
                revision or named or None,
                token,
                [RESULT_FILE, *ADAPTER_FILES, *(f"{where}/*.safetensors" for where in HEAD_FOLDERS)],
            )
        if not (folder / RESULT_FILE).is_file():
            raise InputError(f"{source}: no {RESULT_FILE}; give a folder or repo that MetaMerger has written")
        try:
            saved = json.loads((folder / RESULT_FILE).read_text())
            if saved.get("facts", {}).get("folded"):
                raise InputError(f"{source}: a folded meta-model is a plain model; load it with transformers")
            read_adapter(folder, str(source))
            config = MdftConfig.from_pretrained(folder)
            options = saved["tasks"]
            files = {name: each[TRAINED_HEAD] for name, each in options.items() if TRAINED_HEAD in each}
            tasks = tasks or {name: _task(each, folder) for name, each in options.items()}
            pool_reference, seed = config.pool, int(saved["seed"])
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{source}: no meta-model, or damaged; {str(error).splitlines()[0]}") from error
        pool = ModelPool.from_reference(pool_reference, token=token)
        merger = cls(pool, tasks, config, seed)
        merger.model = PeftModel.from_pretrained(pool.tower(), folder)
        for name in files.keys() & tasks.keys():
            head = load_head(folder / HEAD_FOLDERS[0] / Path(files[name]).name)
            if tasks[name].class_names not in (None, head.class_names):
                raise InputError(f"{source}: its head for '{name}' was trained with other class_names, or their order")
            merger._meta_heads[name] = head
        told = saved.get("facts", {})
        kept = (
            "accuracy",
            "images",
            "overlap",
            "evaluations",
            "history",
            "kept",
            "recipe",
            "datasets",
            "versions",
        )
        merger._facts = {name: told[name] for name in kept if name in told}
        return merger


def _jsonable(task: Task, head: Head) -> dict[str, Any]:
    """A task without its images, as `_task` reads it."""
    kept = {name: getattr(task, name) for name in ("image_column", "label_column", "templates")}
    # A head that cannot be built from the pool travels along.
    kept["head"] = task.head if task.head in (None, "zero_shot", "linear") else head
    return {**kept, "class_names": head.class_names}


def _task(options: dict[str, Any], folder: Path) -> Task:
    head = options.get("head")
    if head is not None and head.endswith(".safetensors"):
        where = HEAD_FOLDERS[1] if TRAINED_HEAD in options else HEAD_FOLDERS[0]
        head = str(folder / where / Path(head).name)
    kept = {name: value for name, value in options.items() if name != TRAINED_HEAD}
    return Task(unlabelled=None, **{**kept, "head": head})
