"""Phase 1 as a `Trainer`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from torch.utils.data import SequentialSampler

from ..errors import InputError
from ..evaluation import accuracy, predict
from ..heads import Head
from ..pool import ModelPool
from ..tasks import Images, LabelledImages, Preprocessor, Task, read_unlabelled
from .arguments import MdftTrainingArguments
from .base import PhaseTrainer, own_arguments
from .expert_outputs import expert_features
from .mixed import MixedTasks, as_batch
from .objective import MetaObjective, TaskObjective
from .progress import show_progress


class MdftTrainer(PhaseTrainer):
    """Learns the coefficients of an MDFT adapter on unlabelled images of all tasks at once.

    One combine, one forward and one backward pass for each step, whatever the number of tasks: rows of a mixed batch
    are routed to their task's head, and the sum of all tasks' terms is one loss. Every term and kept ratio is logged
    by itself.

    Args:
        model: A PEFT model with an `MdftConfig`.
        args: Weights of the terms and everything of `TrainingArguments`.
        train_dataset: Unlabelled images by task: `Images`, a `datasets.Dataset` with an `image` column, or arguments
            of `load_dataset`. Labels are dropped unread.
        heads: By task.
        eval_dataset: Labelled images by task, for `evaluate()` only.
        pool: The pool of the model; the default is found from the adapter's config.

    Example:

        >>> model = get_peft_model(base_vision_model, MdftConfig(pool=pool.reference()))
        >>> trainer = MdftTrainer(model=model, args=MdftTrainingArguments(), train_dataset=images, heads=heads)
        >>> trainer.train()
    """

    def __init__(
        self,
        model: PeftModel,
        args: MdftTrainingArguments | None = None,
        *,
        train_dataset: Mapping[str, Any],
        heads: Mapping[str, Head],
        eval_dataset: Mapping[str, LabelledImages] | None = None,
        pool: ModelPool | None = None,
        **kwargs: Any,
    ) -> None:
        args = own_arguments(args or MdftTrainingArguments())
        self.pool = pool or ModelPool.from_reference(model.active_peft_config.pool)
        self.heads = dict(heads)
        missing = [task for task in train_dataset if task not in self.heads]
        if missing:
            raise InputError(f"task '{missing[0]}' has images but no head")
        self.preprocessor = Preprocessor(self.pool.base.folder, str(self.pool.base))
        with args.main_process_first(desc="preprocessing and expert outputs"):
            images = {task: self._images(task, data) for task, data in train_dataset.items()}
            objectives = {task: self._objective(task, images[task], args) for task in images}
        self.objective = MetaObjective(objectives, args)
        self._labelled = dict(eval_dataset or {})
        super().__init__(
            model=model,
            args=args,
            train_dataset=self._schedule(images, args),
            eval_dataset=self._labelled or None,
            data_collator=as_batch,
            **kwargs,
        )
        show_progress(self, "Meta-model")

    def _images(self, task: str, data: Any) -> Images:
        return data if isinstance(data, Images) else read_unlabelled(task, Task(unlabelled=data), self.preprocessor)

    def _objective(self, task: str, images: Images, args: MdftTrainingArguments) -> TaskObjective:
        features = None
        if task in self.pool.experts:
            features = expert_features(self.pool, task, images, device=args.device, desc=f"Expert {task}")
        return TaskObjective.build(self.heads[task], features, args)

    def _schedule(self, images: dict[str, Images], args: MdftTrainingArguments) -> MixedTasks:
        parts = args.world_size * args.gradient_accumulation_steps
        if args.images_per_task % parts:
            raise InputError(
                f"images_per_task={args.images_per_task} must be a multiple of processes x accumulation "
                f"steps = {parts}"
            )
        args.per_device_train_batch_size = args.images_per_task // parts * len(images)
        steps = args.max_steps
        if steps <= 0:
            longest = max(len(part) for part in images.values())
            # The schedule below is the whole run; the Trainer must not loop over it again.
            steps = args.max_steps = math.ceil(args.num_train_epochs * longest / args.images_per_task)
        return MixedTasks(images, args.images_per_task, steps, args.seed)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        outputs = model(pixel_values=self.preprocessor.normalize(inputs["pixels"]))
        features = self._gather_with_gradient(self.pool.architecture.features(outputs).float())
        task, index = self.accelerator.gather((inputs["task"], inputs["index"]))
        loss, logs = self.objective(features, task, index)
        self.record(logs)
        return (loss, outputs) if return_outputs else loss

    def _gather_with_gradient(self, features: torch.Tensor) -> torch.Tensor:
        """Rows of all processes; only this process's own carry a gradient.

        The loss is not linear in the batch (class prior, filter memory), so every process computes it on the whole
        batch. The gradient is scaled by the number of processes because data-parallel training averages it.
        """
        world = self.accelerator.num_processes
        if world == 1:
            return features
        rows = list(self.accelerator.gather(features.detach()).chunk(world))
        rows[self.accelerator.process_index] = world * features - (world - 1) * features.detach()
        return torch.cat(rows)

    def extra_state(self) -> dict[str, torch.Tensor]:
        return self.objective.state()

    def load_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        self.objective.load_state(state)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Accuracy by task and on average. The only method that reads labels.

        Raises:
            ValueError: There are no labelled images.
        """
        labelled = eval_dataset or self._labelled
        if not labelled:
            raise ValueError("Trainer: evaluation requires an eval_dataset: LabelledImages by task.")
        tower, metrics = self.accelerator.unwrap_model(self.model), {}
        for task, data in labelled.items():
            found = predict(tower, self.pool.architecture, self.heads[task].cpu(), data.images)
            metrics[f"{metric_key_prefix}_{task}_accuracy"] = accuracy(found, data.labels)
            self.heads[task].to(self.args.device)
        metrics[f"{metric_key_prefix}_accuracy"] = sum(metrics.values()) / len(metrics)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
