"""Arguments of phase 2."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from transformers import SchedulerType, TrainingArguments

from ..core.device import join_on_cpu
from ..core.errors import InputError, suggest
from ..embedding.augment import AUGMENTATIONS
from ..trainers.precision import choose_precision
from ..trainers.ranges import MOST_IMAGES, check_arguments
from ..trainers.terms import check_terms
from .teacher import TEACHER_PARTS
from .terms import STUDENT_TERMS
from .trainable import Trainable


@dataclass
class SpecializeArguments(TrainingArguments):
    """Arguments of `MetaMerger.specialize`, on top of transformers' `TrainingArguments`.

    `max_steps` is cut where there are few images (20 epochs of 64, 40 of 256, 80 of 1,024) and where little is left to
    learn (`fewer_steps`); epochs that are set (with `max_steps=-1`) are not.

    Defaults that differ from `TrainingArguments`: `max_steps`, batch size, `learning_rate`, cosine schedule with
    warm-up, no weight decay (L2-SP is in its place), no column removal.

    Args:
        learning_rate: Learning rate of the student's weights. `None` takes 0.15 times the root mean square of the
            expert's task vector, at most 2e-4: experts that were fine-tuned gently are trained gently, whatever their
            size and how they were trained.
        bf16: Whether to compute in bfloat16 (autocast; weights stay in fp32); `None`: where that is faster.
        images: Most unlabelled images per task that are used, drawn by the seed; `None` uses all. Of these, copies of
            an image count once. By default 4,000: the expert sees each under up to 21 views, which for many more
            images would cost more than the training.
        rounds: Rounds of meta-model and specialists; fewer where the gate finds no improvement. 0: no specialists.
        start: Start of the student between the expert, 0, and the meta-model, 1.
        teacher: Parts of the teacher by name, in order; each corrects the targets of those before it. An empty list
            takes the reference (the expert) alone.
        ensemble_weight: Largest weight of a model beside the expert in the teacher's ensemble; 0 is the expert alone:
            what meta-model and base add to an expert over that many views was no gain.
        teacher_views: Average the teacher's reference over 21 small translations, the other models over five; off:
            the image alone.
        further_experts: Learn from all experts of the task; off: from the one that one would take without labels.
        outside_teachers: Learn from the task's teachers from outside the pool.
        related_experts: Let experts of other tasks teach the classes that they share with this one by name, as far as
            they agree with its own models there.
        restore: Restore the images that expert and base teach from, where restorations are found that raise the mutual
            information of image and the expert's prediction (`hf_mdft.embedding.restoration`): for images of another
            camera than the expert's. The student sees them as they are, but for `restored_share`.
        restored_share: Share of the student's images that are restored where the teacher's are, so that it does not
            forget images like those of the expert's training; 0 is off.
        prior_strength: Strength of the correction towards the estimated class prior: 0 none, 1 full.
        lda_weight: Weight of a linear discriminant analysis that is fitted to the teacher's targets, in the expert's
            embedding (with an ensemble, in those of all its models), and corrects them; needs ten images per class; 0
            is off.
        jitter_steps: Largest random translation of the student's images, in steps of 1/32 of the side; 0 is off.
        augmentation: Train the student on augmented images (`hf_mdft.embedding.augment`): `"none"` (translated ones),
            `"mild"` or `"strong"`. Changes of brightness, color and noise, and squares cut out, that leave the class:
            the student learns to answer alike, which its teacher does not.
        refreshes: How many times, evenly spaced, the teacher is made anew, with the student's own average so far among
            its models, there with full weight (self-training). 1 is half-way; 0 never; -1 before every epoch but the
            first.
        confidence_threshold: Least probability of a pseudo-label, for the teacher's part `hard` and the term `must`.
        trainable: What of the tower is trained: `"all"`, or `"norm"`, scales and shifts of normalisation layers.
        distillation_weight: Weight of `KL(teacher || student)`.
        alignment_weight: Weight of the representation alignment, 1 - cosine to the expert's embedding.
        infomax_weight: Weight of information maximisation: confident on each image, and over the batch as diverse as
            the teacher is over all images.
        l2_sp_weight: Weight of the squared distance to the start (L2-SP, Li et al. 2018,
            https://huggingface.co/papers/1802.01483).
        terms: Weights of further registered terms of the student's loss, by name.
        fewer_steps: Take fewer than `max_steps`, down to a quarter, where the teacher's classes differ from the
            predictions that the student starts with on less than a quarter of the images, in proportion.
        ema_decay: Decay of the average of the student's weights that is kept; 0 keeps the last weights. In a short run
            (few images) the average stays near the start, as it should: with 64 images, a faster decay cost experts
            of 1,500 labels 2.8 points.
        gate: Keep the expert where the specialist is not shown to be better; where the images cannot show it (few
            different ones, of few classes, another task's), nothing is trained. Switch it off only to study it.
    """

    output_dir: str | None = field(default="mdft-output/specialists", metadata={"help": "Folder of work in progress."})
    max_steps: int = field(default=1200, metadata={"help": "Most optimizer steps for each task."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Images in a batch."})
    learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of the student's weights; null: in proportion to the expert's task vector."},
    )
    bf16: bool | None = field(
        default=None, metadata={"help": "Compute in bfloat16; null: where it is faster than fp32."}
    )
    lr_scheduler_type: SchedulerType = field(default="cosine", metadata={"help": "Schedule of the learning rate."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps of warm-up; below 1, their share of all steps."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between two log lines."})
    save_steps: float = field(default=100, metadata={"help": "Steps between two checkpoints."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Number of checkpoints that are kept."})
    ddp_timeout: int = field(default=86_400, metadata={"help": "Seconds that processes wait for the first one."})
    disable_tqdm: bool | None = field(default=False, metadata={"help": "Show no progress bars."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Removal of unused columns; stays off, because batches have none."}
    )
    images: int | None = field(
        default=MOST_IMAGES, metadata={"help": "Most unlabelled images per task that are used; null uses all."}
    )
    rounds: int = field(default=1, metadata={"help": "Rounds of meta-model and specialists; 0 is none."})
    start: float = field(
        default=0.0, metadata={"help": "Start of the student between the expert, 0, and the meta-model, 1."}
    )
    teacher: list[str] = field(
        default_factory=lambda: ["ensemble", "class_prior", "lda"],
        metadata={"help": "Parts of the teacher by name, in order."},
    )
    ensemble_weight: float = field(
        default=0.0, metadata={"help": "Largest weight of a model beside the expert in the teacher; 0 is off."}
    )
    teacher_views: bool = field(default=True, metadata={"help": "Average the teacher over small translations."})
    further_experts: bool = field(
        default=True, metadata={"help": "Learn from all experts of a task, not only from one chosen without labels."}
    )
    outside_teachers: bool = field(
        default=True, metadata={"help": "Learn from a task's teachers from outside the pool."}
    )
    related_experts: bool = field(
        default=True, metadata={"help": "Learn from other tasks' experts of classes that they share."}
    )
    restore: bool = field(
        default=True,
        metadata={"help": "Restore the teacher's images where that raises its predictions' mutual information."},
    )
    restored_share: float = field(
        default=0.25, metadata={"help": "Share of the student's images that are restored where the teacher's are."}
    )
    prior_strength: float = field(
        default=0.5, metadata={"help": "Strength of the teacher's correction towards the class prior; 0 none, 1 full."}
    )
    lda_weight: float = field(
        default=0.2, metadata={"help": "Weight of the discriminant analysis that corrects the teacher; 0 is off."}
    )
    jitter_steps: int = field(
        default=1, metadata={"help": "Largest random translation of the student's images, in 1/32 of the side."}
    )
    augmentation: Literal["none", "mild", "strong"] = field(
        default="none", metadata={"help": "Augmentation of the student's images: none (translations), mild, strong."}
    )
    refreshes: int = field(
        default=0,
        metadata={"help": "How many times the teacher is made anew, with the student in it; -1: before every epoch."},
    )
    confidence_threshold: float = field(
        default=0.0, metadata={"help": "Least probability of a pseudo-label, for the part 'hard' and the term 'must'."}
    )
    trainable: Trainable = field(
        default="all", metadata={"help": "What is trained: 'all', or 'norm', the normalisation layers alone."}
    )
    distillation_weight: float = field(default=1.0, metadata={"help": "Weight of distillation from the teacher."})
    alignment_weight: float = field(
        default=0.0, metadata={"help": "Weight of the alignment with the expert's embeddings; 0 is off."}
    )
    infomax_weight: float = field(default=0.0, metadata={"help": "Weight of information maximisation; 0 is off."})
    l2_sp_weight: float = field(
        default=0.0, metadata={"help": "Weight of the squared distance to the start; 0 is off."}
    )
    terms: dict[str, float] = field(
        default_factory=dict, metadata={"help": "Weights of further registered terms, by name."}
    )
    ema_decay: float = field(default=0.98, metadata={"help": "Decay of the weight average that is kept; 0 is off."})
    fewer_steps: bool = field(
        default=True, metadata={"help": "Fewer than max_steps where the teacher corrects few predictions."}
    )
    gate: bool = field(
        default=True, metadata={"help": "Keep the expert where the specialist is not shown to be better."}
    )

    def __post_init__(self) -> None:
        join_on_cpu()
        if self.push_to_hub:
            raise InputError("push_to_hub: there is a specialist for every task; push each with its own push_to_hub()")
        check_arguments(self)
        choose_precision(self)
        super().__post_init__()
        if self.max_steps == 0:
            raise InputError(
                "max_steps must be at least 1 (or -1 to count num_train_epochs), got 0; rounds: 0 is none"
            )
        if self.rounds < 0:
            raise InputError(f"rounds must be at least 0, got {self.rounds}")
        if self.refreshes < -1:
            raise InputError(f"refreshes must be at least 0 (or -1: before every epoch), got {self.refreshes}")
        if self.augmentation not in ("none", *AUGMENTATIONS):
            names = ("none", *AUGMENTATIONS)
            raise InputError(f"augmentation: unknown '{self.augmentation}': {suggest(str(self.augmentation), names)}")
        if self.trainable not in get_args(Trainable):
            raise InputError(
                f"trainable: unknown '{self.trainable}': {suggest(str(self.trainable), get_args(Trainable))}"
            )
        for name in ("start", "restored_share", "prior_strength", "lda_weight", "confidence_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay must lie in [0, 1), got {self.ema_decay}")
        if isinstance(self.teacher, str):
            raise InputError(f"teacher must be a list of names, got '{self.teacher}'")
        for name in self.teacher:
            TEACHER_PARTS.get(name)
        check_terms(self, STUDENT_TERMS)
