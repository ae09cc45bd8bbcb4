"""Phase 1 as a `Trainer`."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from torch.utils.data import SequentialSampler
from transformers.trainer_utils import TrainOutput

from ..adapter import combined_once
from ..core.errors import InputError
from ..embedding.statistics import estimate_statistics
from ..evaluation import accuracy, predict
from ..experts import TaskExperts
from ..heads import Head
from ..pool import ModelPool
from ..pool.processors import check_processors, processor_of
from ..tasks import Images, LabelledImages, Preprocessor, Task, read_unlabelled
from ..tasks.preprocessor import normalize_mixed
from ..trainers.base import own_arguments
from ..trainers.diverged import refuse_diverged
from ..trainers.flat import EndWhereFlat, ends_where_flat, held_out
from ..trainers.progress import show_progress
from .arguments import MdftTrainingArguments
from .checks import LACKS_HEADS, check_division, check_given
from .finish_heads import finish_heads
from .held_out import MOST, held_out_loss
from .hub import PushingTrainer
from .keep_range import KeepRange
from .micro_batches import average, gathered, micro_batch_of, micro_batches
from .mixed import MixedTasks, as_batch
from .objective import MetaObjective
from .sharpness import gradient_uphill
from .targets import experts_of, task_objectives


class MdftTrainer(PushingTrainer):
    """Learns the coefficients of an MDFT adapter on unlabelled images of all tasks at once.

    One combine for each step, whatever the number of experts and of micro-batches: rows of a mixed batch are routed to
    their task's head, and the sum of all tasks' terms is one loss. Every term and kept ratio is logged separately.

    Args:
        model: PEFT model with an `MdftConfig`.
        args: Weights of the terms and everything of `TrainingArguments`.
        train_dataset: Unlabelled images by task: `Images`, a `datasets.Dataset` with an `image` column, or arguments
            of `load_dataset`. Labels are dropped unread.
        heads: Heads by task.
        eval_dataset: Labelled images by task, for `evaluate()` only.
        pool: Pool that the model is made of; the default is that of `experts`, or found from the adapter's config.
        experts: Experts by task, with their heads, and teachers from outside the pool; the default is the pool's, with
            the task's head (several with linear heads have their own classifiers).

    Raises:
        InputError: There is no task, a task has no head, or the images cannot be had.

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
        experts: Mapping[str, TaskExperts] | None = None,
        **kwargs: Any,
    ) -> None:
        self._logs: dict[str, torch.Tensor] = {}
        self._step_is_over = True
        self._given_args = args or MdftTrainingArguments()
        check_given(model, self._given_args, train_dataset, heads, eval_dataset, kwargs)
        args, experts = own_arguments(self._given_args), experts or {}
        pool = pool or next((found.pool for found in experts.values()), None)
        self.pool = pool or ModelPool.from_reference(model.active_peft_config.pool)
        self.heads, self._own_heads = dict(heads), dict(heads)
        check_division(args)
        unread = [task for task, data in train_dataset.items() if not isinstance(data, Images)]
        check_processors(self.pool, [task for task in unread if task in self.pool.tasks])
        with args.main_process_first(desc="preprocessing"):
            found = {task: self._images(task, data) for task, data in train_dataset.items()}
            images = {task: own.sample(args.images, args.seed) for task, own in found.items()}
            given = {task: experts.get(task) or experts_of(task, self.heads[task], self.pool) for task in images}
        own_optimizer, _ = kwargs.get("optimizers") or (None, None)
        if own_optimizer and args.train_heads and any(found.heads for found in given.values()):
            raise InputError(LACKS_HEADS)  # they are made below, as copies of those that are given
        objectives = task_objectives(given, self.heads, images, args)
        self.objective = MetaObjective(objectives, args)
        self._images_of = images
        most = MOST if ends_where_flat(args) and args.distillation_weight > 0 else 0
        self._held_out = {t: held_out(len(own), most, args.seed, n) for n, (t, own) in enumerate(images.items())}
        self._preprocessors = [found.preprocessor for found in images.values()]
        self.heads |= {task: objective.head for task, objective in objectives.items()}
        self._labelled = dict(eval_dataset or {})
        shape = next(iter(images.values())).shape
        self._micro_batch_size = micro_batch_of(self.pool, shape, args)
        super().__init__(
            model=model,
            args=args,
            train_dataset=self._schedule(images, args),
            eval_dataset=self._labelled or None,
            data_collator=as_batch,
            **kwargs,
        )
        show_progress(self, "Meta-model")
        if args.coefficient_range is not None:
            self.add_callback(KeepRange(args.coefficient_range, self._coefficients))
        if any(len(rows) for rows in self._held_out.values()):
            self.add_callback(EndWhereFlat(self._held_out_loss, self.log))

    def _held_out_loss(self) -> float:
        model, rows = self.accelerator.unwrap_model(self.model), {t: r for t, r in self._held_out.items() if len(r)}
        return held_out_loss(model, self.pool, self.objective.tasks, self._images_of, rows, self.args)

    def _images(self, task: str, data: Any) -> Images:
        if isinstance(data, Images):
            return data
        source = processor_of(self.pool, task) if task in self.pool.tasks else self.pool.base
        return read_unlabelled(task, Task(unlabelled=data), Preprocessor.of(source.folder, str(source)))

    def _schedule(self, images: dict[str, Images], args: MdftTrainingArguments) -> MixedTasks:
        parts = args.world_size * args.gradient_accumulation_steps
        if self.pool.keeps_statistics and args.images_per_task * len(images) // parts < 2:
            raise InputError("images_per_task=1 for one task: BatchNorm needs two images at a time; set 2 or more")
        args.per_device_train_batch_size = args.images_per_task // parts * len(images)
        steps = args.max_steps
        if steps == 0:
            raise InputError("max_steps=0 leaves nothing to train; MetaMerger.fit takes it for a static merge")
        if steps < 0:
            longest = max(len(part) for part in images.values())
            # The schedule below is the whole run; the Trainer must not loop over it again.
            steps = args.max_steps = math.ceil(args.num_train_epochs * longest / args.images_per_task)
        order = args.seed if args.data_seed is None else args.data_seed
        return MixedTasks(images, args.images_per_task, steps, order, self._held_out)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        task, index = inputs["task"], self.accelerator.gather(inputs["index"])
        if self.accelerator.num_processes > 1:  # before the forward pass, which it would wait for
            task = self.accelerator.gather(torch.tensor(task, device=index.device)).tolist()
        outputs = model(pixel_values=normalize_mixed(inputs["pixels"], inputs["task"], self._preprocessors))
        features = gathered(self.pool.architecture.features(outputs).float(), self.accelerator)
        loss, self._logs = self.objective(features, task, index)
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """As in `Trainer`, with the heads as a group of their own.

        They are no part of the wrapped model: every process computes the loss on the whole batch, so that their
        gradients are equal everywhere without being sent. `max_grad_norm` does not reach them.

        Raises:
            InputError: An optimizer that was given does not hold the heads that are trained.
        """
        fresh = self.optimizer is None
        optimizer, heads = super().create_optimizer(model), self.objective.head_parameters()
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if fresh and heads:
            optimizer.add_param_group({"params": heads, "lr": self.args.head_learning_rate, "weight_decay": 0.0})
        elif not all(id(p) in held for p in heads):
            raise InputError(LACKS_HEADS)
        return optimizer

    @property
    def trained_heads(self) -> dict[str, Head]:
        """Heads that are trained with the coefficients, by task."""
        heads = {task: objective.head for task, objective in self.objective.tasks.items()}
        return {task: head for task, head in heads.items() if any(p.requires_grad for p in head.parameters())}

    def _coefficients(self) -> list[torch.nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """As in `Trainer`, in micro-batches over one combine; with `sharpness_radius`, the gradient is taken where the
        loss is highest nearby."""
        heads = self.objective.head_parameters()
        if self._step_is_over:  # the Trainer clears the model's gradients only
            for p in heads:
                p.grad = None
        parameters = self._coefficients() + heads
        accumulated = {p: p.grad for p in parameters if p.grad is not None}
        gradient = functools.partial(self._gradient, parameters, model, inputs, *args, **kwargs)
        if self.args.sharpness_radius:
            memories = self.objective.term_modules()
            loss, logs = gradient_uphill(parameters, gradient, self.args.sharpness_radius, memories)
        else:
            loss, logs = gradient()
        for p, earlier in accumulated.items():
            p.grad = earlier if p.grad is None else p.grad + earlier
        self.record(logs)
        self._step_is_over = self.accelerator.sync_gradients
        return loss

    def _gradient(
        self,
        parameters: list[torch.nn.Parameter],
        model: torch.nn.Module,
        inputs: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss and what to log; `grad` is this batch's alone, and the same in every process."""
        for p in parameters:
            p.grad = None
        parts = micro_batches(inputs, len(self.objective.tasks), self._micro_batch_size)
        losses, logs = [], {}
        # Gradients cross processes once for all micro-batches, below.
        once = len(parts) > 1 or self.args.device.type == "cuda" or self.args.shard is not None
        once = once or self.args.gradient_checkpointing  # what is computed again needs the same weights
        combined = combined_once(model, self.args.shard) if once else contextlib.nullcontext()
        with self.accelerator.no_sync(model), combined:
            for part in parts:
                losses.append(super().training_step(model, part, *args, **kwargs))
                for name, value in self._logs.items():
                    logs[name] = logs.get(name, 0.0) + value
        if self.accelerator.num_processes > 1:
            average([p.grad for p in parameters if p.grad is not None], self.accelerator)
        return torch.stack(losses).sum(), logs

    def extra_state(self) -> dict[str, torch.Tensor]:
        return self.objective.state()

    def load_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        self.objective.load_state(state)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """As in `Trainer`; with `push_to_hub=True` the final model is pushed at the end."""
        output = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        tower = self.accelerator.unwrap_model(self.model)
        refuse_diverged(self._coefficients() + self.objective.head_parameters())
        if self.pool.keeps_statistics:
            with torch.no_grad(), combined_once(tower, self.args.shard):
                estimate_statistics(tower, list(self._images_of.values()))
        if self.args.head_steps:
            images = {task: self._images_of[task] for task in self.trained_heads}
            finish_heads(tower, self.pool.architecture, self.objective, images, self.args)
        if self.args.push_to_hub:
            self.push_to_hub()
        return output

    def finish(self) -> PeftModel:
        """The trained model on the CPU, without the wrappers of training."""
        model = self.accelerator.unwrap_model(self.model).cpu()
        self.pool.vectors(model.active_peft_config.transform).release()
        return model

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
        with combined_once(tower, self.args.shard):
            for task, data in labelled.items():
                found = predict(tower, self.pool.architecture, self.heads[task].cpu(), data.images)
                metrics[f"{metric_key_prefix}_{task}_accuracy"] = accuracy(found, data.labels)
                self.heads[task].to(self.args.device)
        metrics[f"{metric_key_prefix}_accuracy"] = sum(metrics.values()) / len(metrics)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
