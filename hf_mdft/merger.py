"""MetaMerger: the face of the package. Orchestration, no maths."""

from __future__ import annotations

import copy
import dataclasses
import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import set_seed
from transformers.trainer_utils import TrainOutput

from .adapter import MdftConfig
from .errors import InputError, suggest
from .evaluation import BASELINES, Report, accuracy, combined_tower, mcnemar, predict
from .heads import Head, build_head
from .hub import push_folder
from .hub.cards import meta_card, shared_licence
from .pool import ModelPool
from .pool.sources import download
from .specialize import Specialist, SpecializeArguments, specialize_task
from .tasks import Images, LabelledImages, Preprocessor, Task, read_labelled, read_unlabelled
from .training import MdftTrainer, MdftTrainingArguments, arguments_key, resumable
from .versions import versions


TASKS_FILE = "mdft.json"


class MetaMerger:
    """A pool, its tasks, and what is made of them without labels.

    Args:
        pool: Base and experts.
        tasks: By the names of the pool's experts; a task without an expert is adapted to as well.
        config: Of the adapter; its pool is filled in.
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
        self.config = copy.deepcopy(config) or MdftConfig()
        self.config.pool, self.config.tower, self.config.inference_mode = pool.reference(), None, False
        self.seed = seed
        self.preprocessor = Preprocessor(pool.base.folder, str(pool.base))
        self.model: PeftModel | None = None
        self.specialists: dict[str, Specialist] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.timing: dict[str, float] = {}
        self._facts: dict[str, Any] = {}
        self._heads: dict[str, Head] = {}
        self._images: dict[str, Images] = {}
        self._fit_args: MdftTrainingArguments | None = None

    # What the stages share

    def head(self, task: str) -> Head:
        """The task's head, built the first time."""
        if task not in self._heads:
            self._heads[task] = build_head(task, self.tasks[task], self.pool)
        return self._heads[task].cpu()

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
        """Learn the coefficients on the unlabelled images of all tasks; labels are never read.

        A run that was interrupted goes on from its last checkpoint in `args.output_dir`.

        Raises:
            InputError: A task's images or head cannot be had.
        """
        args = copy.copy(args) if args else MdftTrainingArguments(seed=self.seed)
        with self._timed("prepare"):
            with args.main_process_first(desc="images and heads"):
                images = {task: self.unlabelled(task) for task in self.tasks}
                heads = {task: self.head(task) for task in self.tasks}
                checkpoint = resumable(Path(args.output_dir), self._meta_key(args))
        with self._timed("meta"):
            set_seed(args.seed)
            self.model = get_peft_model(self.pool.tower(), copy.deepcopy(self.config))
            trainer = MdftTrainer(self.model, args, train_dataset=images, heads=heads, pool=self.pool)
            output = trainer.train(resume_from_checkpoint=checkpoint)
        self.model = trainer.accelerator.unwrap_model(trainer.model).cpu()
        self.pool.vectors(self.config.transform).release()
        self.history["meta"] = trainer.state.log_history
        self._fit_args = args
        return output

    def _meta_key(self, args: MdftTrainingArguments) -> list[Any]:
        adapter = [self.config.granularity, self.config.transform, self.config.init_coefficient]
        tasks = {task: [self.head(task).key(), self.unlabelled(task).key] for task in self.tasks}
        # How a step is divided does not change it.
        key = arguments_key(args)
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
            key.pop(name)
        return ["meta 1", self.pool.reference(), adapter, tasks, key]

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
        args = args or SpecializeArguments(seed=self.seed)
        merger, todo = self, list(tasks or self.tasks)
        for number in range(1, args.rounds + 1):
            round_args = copy.copy(args)
            round_args.output_dir = str(Path(args.output_dir) / f"round-{number}")
            found = merger._specialize_once(round_args, todo, self.timing)
            self.specialists.update(
                {task: s for task, s in found.items() if s.improved or task not in self.specialists}
            )
            todo = [task for task, specialist in found.items() if specialist.improved]
            if not todo or number == args.rounds:
                break
            merger = merger._next_round(found, round_args)
        for task, specialist in self.specialists.items():
            specialist.origin = self.pool
            self.history[task] = specialist.history
        return {task: self.specialists[task] for task in tasks or self.tasks}

    def _specialize_once(
        self, args: SpecializeArguments, tasks: list[str], timing: dict[str, float]
    ) -> dict[str, Specialist]:
        meta, found = self.meta_tower(), {}
        meta_key = [tensor.double().sum().item() for tensor in meta.parameters()]
        for task in tasks:
            start = time.perf_counter()
            set_seed(args.seed)
            found[task] = specialize_task(
                task, self.pool, meta, self.head(task), self.unlabelled(task), args, meta_key
            )
            timing[f"specialist {task}"] = timing.get(f"specialist {task}", 0.0) + time.perf_counter() - start
        return found

    def _next_round(self, found: dict[str, Specialist], args: SpecializeArguments) -> MetaMerger:
        pool = self.pool.with_experts({task: s.candidate for task, s in found.items() if s.improved})
        merger = MetaMerger(pool, self.tasks, self.config, self.seed)
        merger._heads, merger._images = self._heads, self._images
        fit_args = copy.copy(self._fit_args) or MdftTrainingArguments(seed=self.seed)
        fit_args.output_dir = str(Path(args.output_dir) / "next-meta")
        merger.fit(fit_args)
        return merger

    # Evaluation

    def evaluate(self) -> Report:
        """Accuracy of base, experts, baselines, meta-model and specialists, for tasks with evaluation images.

        The only method that reads labels.
        """
        start = time.perf_counter()
        data = {task: found for task in self.tasks if (found := self.labelled(task)) is not None}
        predictions: dict[str, dict[str, torch.Tensor]] = {}

        def measure(model: str, tower_of: Any, tasks: list[str]) -> None:
            predictions[model] = {
                task: predict(
                    tower_of(task), self.pool.architecture, self.head(task), data[task].images, desc=f"{model} {task}"
                )
                for task in tasks
            }

        for name, tower in self._shared_towers():
            measure(name, lambda _, tower=tower: tower, list(data))
        measure("expert", self.pool.tower, [task for task in data if task in self.pool.experts])
        made = [task for task in data if task in self.specialists]
        if made:
            measure("specialist_ungated", lambda task: self.specialists[task].tower(gated=False), made)
            fallback = {**predictions.get("meta", {}), **predictions["expert"]}
            predictions["specialist"] = {
                task: (predictions["specialist_ungated"] if self.specialists[task].improved else fallback)[task]
                for task in made
            }
        self.timing["evaluate"] = time.perf_counter() - start
        report = self._report(data, predictions)
        self._tell_specialists(report, data)
        return report

    def _shared_towers(self) -> Iterator[tuple[str, nn.Module]]:
        yield "base", self.pool.tower()
        for name, coefficient in BASELINES.items():
            yield name, combined_tower(self.pool, coefficient)
        if self.model is not None:
            yield "meta", self.meta_tower()

    def _report(self, data: dict[str, LabelledImages], predictions: dict[str, dict[str, torch.Tensor]]) -> Report:
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
                    "transductive": self._transductive(task, data[task]),
                }
        report.gate = {task: specialist.decision.to_dict() for task, specialist in self.specialists.items()}
        if self.model is not None:
            experts = list(self.pool.experts)
            report.coefficients = {
                name: dict(zip(experts, row.tolist(), strict=True))
                for name, row in self.model.base_model.coefficients(self.model.active_adapter).items()
            }
        report.history, report.timing_s = self.history, self.timing
        report.pool, report.versions, report.seed = self.pool.reference(), versions(), self.seed
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        report.peak_memory_bytes = peak if sys.platform == "darwin" else peak * 1024
        return report

    def _transductive(self, task: str, data: LabelledImages) -> bool:
        """Whether the evaluation images are those that were used without labels."""
        return data.images.key == self.unlabelled(task).key

    def _tell_specialists(self, report: Report, data: dict[str, LabelledImages]) -> None:
        self._facts = {"tasks": report.tasks, "accuracy": report.accuracy}
        for task, specialist in self.specialists.items():
            shown = [m for m in ("base", "expert", "meta", "specialist") if task in report.accuracy.get(m, {})]
            pair = report.comparison.get(task, {})
            specialist.facts = {
                "accuracy": {model: report.accuracy[model][task] for model in shown},
                "images": len(data[task].images) if task in data else None,
                "transductive": task in data and self._transductive(task, data[task]),
                "p_value": pair.get("p_value") if specialist.improved else None,
            }

    # Results

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the meta-model: the adapter (kilobytes), what its tasks are, and a model card.

        Raises:
            InputError: There is no meta-model yet.
        """
        if self.model is None:
            raise InputError("there is no meta-model yet: call fit() first")
        folder = Path(folder)
        self.model.save_pretrained(folder, save_embedding_layers=False)
        tasks = {name: _jsonable(task, self.head(name)) for name, task in self.tasks.items()}
        (folder / TASKS_FILE).write_text(json.dumps({"tasks": tasks, "seed": self.seed}, indent=2))
        config = {"granularity": self.config.granularity, "transform": self.config.transform}
        licence = shared_licence([self.pool.base, *self.pool.experts.values()])
        meta_card(self.pool.reference(), config, self._facts, licence).save(folder / "README.md")

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Push the meta-model in one commit; see `hf_mdft.hub.push_folder` for the arguments."""
        return push_folder(self.save_pretrained, repo_id, **kwargs)

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
            folder = download(str(source), revision, token)
        if not (folder / TASKS_FILE).is_file():
            raise InputError(f"{source}: no {TASKS_FILE}; give a folder or repo that MetaMerger has written")
        try:
            saved = json.loads((folder / TASKS_FILE).read_text())
            config = MdftConfig.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise InputError(f"{source}: damaged; {str(error).splitlines()[0]}") from error
        pool = ModelPool.from_reference(config.pool, token=token)
        tasks = tasks or {name: Task(unlabelled=None, **task) for name, task in saved["tasks"].items()}
        merger = cls(pool, tasks, config, saved["seed"])
        merger.model = PeftModel.from_pretrained(pool.tower(), folder)
        return merger


def _jsonable(task: Task, head: Head) -> dict[str, Any]:
    fields = {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}
    kept = {name: fields[name] for name in ("image_column", "label_column", "templates")}
    kept["head"] = fields["head"] if isinstance(fields["head"], str) else None
    return {**kept, "class_names": head.class_names}
