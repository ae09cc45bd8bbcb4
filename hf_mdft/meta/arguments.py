"""Arguments of phase 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from transformers import SchedulerType, TrainingArguments
from transformers.trainer_utils import HubStrategy

from ..adapter import Shard
from ..core.device import join_on_cpu
from ..core.errors import InputError, suggest
from ..objectives import FILTERS
from ..trainers.precision import choose_precision
from ..trainers.ranges import MOST_IMAGES, check_arguments
from ..trainers.terms import check_terms
from .terms import META_TERMS


Distance = Literal["kl", "hard", "embedding"]
PriorEstimate = Literal["shrunk", "em", "uniform"]


@dataclass
class MdftTrainingArguments(TrainingArguments):
    """Arguments of [`MdftTrainer`], on top of transformers' `TrainingArguments`.

    Defaults that differ from `TrainingArguments`: `max_steps`, `learning_rate` (coefficients are of order 0.1, not
    0.01), constant schedule, no weight decay (it would pull the coefficients to the base), no column removal, logging
    every 10 and a checkpoint every 250 steps, of which the last is kept, pushes at the end only. `adam_epsilon` is
    larger than usual: Adam divides by the gradient's size, so that where a gradient is rounding noise 1e-8 makes full
    steps of it, and runs on one and on two processes would drift apart.

    Args:
        images: Most unlabelled images of a task that are used, drawn by the seed; `None` uses all. The default, 4,000,
            is that of phase 2, which looks at the same ones: the expert sees each under five views, and a run of the
            default length draws 4,800.
        fewer_steps: End before `max_steps` where the distance to the experts no longer falls on an eighth of the
            images, at most 64 of a task, which are held out for it.
        bf16: Whether to compute in bfloat16 (autocast; coefficients stay in fp32); `None`: where that is faster.
        images_per_task: Images of every task that one optimizer step sees, over all processes and accumulated parts
            together: the same recipe gives the same result on any number of processes (but for models with BatchNorm,
            which measures what each sees). Accumulated parts (`gradient_accumulation_steps`) are batches of their own
            to prior, filter and `hard` distillation (a mean over the images that are kept), so they change the result;
            `images_per_micro_batch` saves memory without that.
        images_per_micro_batch: Images of one forward and backward pass, in whole tasks: how much memory and time a
            step needs, not what it does (but for BatchNorm). By default as many as make 3,200 tokens on a CPU (64 of
            ViT-B/32: no slower than more, in less memory), all on accelerators.
        shard_task_vectors: Keep on each process's device a part of the task vectors only, for pools that do not fit
            one (on CPUs they are views of files, which need no memory of a process). The weights are combined in parts
            and gathered, and their gradients summed over processes, both in fp32, for every combine. The result is the
            same but for the order of sums. All processes must call `evaluate()` together. Changes nothing for one
            process.
        entropy_weight: Weight of the filtered entropy.
        normalize_entropy: Divide entropies by ln C, so that tasks with many classes count no more than others.
        distillation_weight: Weight of distillation from the task's expert; for a task without one, from the base.
        prior_weight: Weight of the match between predicted class frequencies and the estimated class prior.
        diversity_weight: Weight of the negative entropy of the batch's mean prediction (SHOT, Liang et al. 2020,
            https://huggingface.co/papers/2002.08546). Off: it assumes that all classes are equally frequent.
        terms: Weights of further registered terms, by name.
        filter: Filter of the images that the entropy counts: name, or name and options, of a registered one.
        distillation_distance: Distance to the expert: `"kl"` of predictions, `"hard"` (cross-entropy to the expert's
            class), or `"embedding"` (1 - cosine).
        distillation_temperature: Temperature of the KL.
        restore: Restore the images that experts see, where restorations are found that raise the mutual information of
            image and prediction (`hf_mdft.embedding.restoration`): for images of another camera than theirs.
        distillation_views: Average the expert over five small translations of an image; off: the image alone.
        agreement_rule: Leave out of distillation the images on which model and expert disagree and the model is the
            more confident one.
        prior: Estimate of the class prior: `"shrunk"`, `"em"` or `"uniform"`, see `estimate_prior`.
        train_heads: Train every task's head too, where the task has an expert to distil from; the expert and its
            specialist keep the head as it was.
        train_projection: Zero-shot heads train their copy of the visual projection with their class embeddings
            (worth 1.2 points on development pool A); off: the class embeddings alone, as SyMerge does.
        head_learning_rate: Learning rate of the heads, whose gradients `max_grad_norm` does not clip.
        head_steps: Steps of the heads alone, at the end, on the finished tower's embeddings; 0 is none.
        coefficient_range: Smallest and largest coefficient; `None` leaves them free.
        sharpness_radius: Radius of sharpness-aware minimisation (SAM, Foret et al. 2021,
            https://huggingface.co/papers/2010.01412) over coefficients and heads; 0 is off. Steps cost twice.
    """

    output_dir: str | None = field(default="mdft-output/checkpoints", metadata={"help": "Folder of checkpoints."})
    max_steps: int = field(
        default=300, metadata={"help": "Optimizer steps, each with images of every task; 0 is a static merge."}
    )
    learning_rate: float = field(default=1e-2, metadata={"help": "Learning rate of the coefficients."})
    lr_scheduler_type: SchedulerType = field(default="constant", metadata={"help": "Schedule of the learning rate."})
    adam_epsilon: float = field(
        default=1e-3, metadata={"help": "Epsilon of Adam; larger than usual, which keeps rounding noise small."}
    )
    logging_steps: float = field(default=10, metadata={"help": "Steps between two log lines."})
    save_steps: float = field(default=250, metadata={"help": "Steps between two checkpoints."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Number of checkpoints that are kept."})
    hub_strategy: HubStrategy = field(default="end", metadata={"help": "When to push; 'end' is the only choice."})
    ddp_timeout: int = field(default=86_400, metadata={"help": "Seconds that processes wait for the first one."})
    disable_tqdm: bool | None = field(default=False, metadata={"help": "Show no progress bars."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Removal of unused columns; stays off, because batches have none."}
    )
    images_per_task: int = field(default=16, metadata={"help": "Images of every task in one optimizer step."})
    images_per_micro_batch: int | None = field(
        default=None, metadata={"help": "Images of one forward and backward pass, in whole tasks; null: what is fast."}
    )
    shard_task_vectors: bool = field(
        default=False, metadata={"help": "Keep a part of the task vectors only on each process's device."}
    )
    entropy_weight: float = field(default=0.1, metadata={"help": "Weight of the filtered entropy; 0 is off."})
    normalize_entropy: bool = field(default=True, metadata={"help": "Divide entropies by ln C."})
    distillation_weight: float = field(
        default=1.0, metadata={"help": "Weight of distillation from the task's expert; 0 is off."}
    )
    prior_weight: float = field(default=0.1, metadata={"help": "Weight of the match with the class prior; 0 is off."})
    diversity_weight: float = field(default=0.0, metadata={"help": "Weight of diverse predictions; 0 is off."})
    terms: dict[str, float] = field(
        default_factory=dict, metadata={"help": "Weights of further registered terms, by name."}
    )
    filter: str | dict[str, Any] = field(
        default="eata", metadata={"help": "Filter of the entropy: name, or name and options."}
    )
    distillation_distance: Distance = field(
        default="kl", metadata={"help": "Distance to the expert: 'kl', 'hard' or 'embedding'."}
    )
    distillation_temperature: float = field(default=2.0, metadata={"help": "Temperature of the KL."})
    restore: bool = field(
        default=True,
        metadata={"help": "Restore the experts' images where that raises their predictions' mutual information."},
    )
    distillation_views: bool = field(
        default=True, metadata={"help": "Average the expert over five small translations of an image."}
    )
    agreement_rule: bool = field(
        default=True, metadata={"help": "Leave confident disagreement with the expert out of distillation."}
    )
    prior: PriorEstimate = field(
        default="shrunk", metadata={"help": "Estimate of the class prior: 'shrunk', 'em' or 'uniform'."}
    )
    train_heads: bool = field(default=True, metadata={"help": "Train the heads of tasks with an expert too."})
    train_projection: bool = field(
        default=True, metadata={"help": "Train the visual projection of zero-shot heads with their class embeddings."}
    )
    head_learning_rate: float = field(default=1e-2, metadata={"help": "Learning rate of the heads."})
    head_steps: int = field(default=600, metadata={"help": "Steps of the heads alone at the end; 0 is none."})
    coefficient_range: list[float] | None = field(
        default=None, metadata={"help": "Smallest and largest coefficient; null leaves them free."}
    )
    sharpness_radius: float = field(
        default=0.0, metadata={"help": "Radius of sharpness-aware minimisation; 0 is off."}
    )
    fewer_steps: bool = field(
        default=True, metadata={"help": "End where the distance to the experts on held-out images no longer falls."}
    )
    bf16: bool | None = field(
        default=None, metadata={"help": "Compute in bfloat16; null: where it is faster than fp32."}
    )
    images: int | None = field(
        default=MOST_IMAGES, metadata={"help": "Most unlabelled images per task that are used; null uses all."}
    )

    def __post_init__(self) -> None:
        join_on_cpu()
        check_arguments(self)
        choose_precision(self)
        super().__post_init__()
        if self.per_device_train_batch_size != type(self).per_device_train_batch_size:
            raise InputError(
                "per_device_train_batch_size follows from images_per_task in phase 1: set that, or "
                "images_per_micro_batch to save memory"
            )
        for name in ("images_per_task", "images_per_micro_batch"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, kind in (("distillation_distance", Distance), ("prior", PriorEstimate)):
            value, known = getattr(self, name), get_args(kind)
            if value not in known:
                raise InputError(f"{name}: unknown '{value}': {suggest(str(value), known)}")
        if self.coefficient_range is not None:
            try:
                low, high = (float(bound) for bound in self.coefficient_range)
            except (TypeError, ValueError):
                low, high = 1.0, 0.0
            if low > high:
                raise InputError(f"coefficient_range must be [smallest, largest], got {self.coefficient_range}")
        if not isinstance(self.filter, str | Mapping):
            raise InputError(f"filter must be a name, or a name and options, got {self.filter}")
        FILTERS.get(self.filter if isinstance(self.filter, str) else self.filter.get("name", ""))
        check_terms(self, META_TERMS)

    @property
    def shard(self) -> Shard | None:
        """The part of the task vectors that this process keeps; `None`: all."""
        return Shard.current() if self.shard_task_vectors else None
