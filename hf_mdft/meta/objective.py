"""The loss of phase 1: terms of every task, summed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..heads import Head
from ..objectives import (
    FILTERS,
    SampleFilter,
    agreement_rule,
    concentration,
    embedding_distance,
    entropy,
    estimate_prior,
    expert_divergence,
    hard_distillation,
    max_entropy,
    mean_log_probs,
    prior_divergence,
)
from .arguments import MdftTrainingArguments


@dataclass
class TaskObjective:
    """What one task needs for its terms.

    Args:
        head: Of the model; trained or frozen.
        filter: With a memory of its own.
        expert_features: `(N, width)` of the task's images; the base's for a task without an expert.
        expert_logits: `(N, C)` of the same.
        prior: `(C,)`, estimated from the expert.
    """

    head: Head
    filter: SampleFilter
    expert_features: torch.Tensor
    expert_logits: torch.Tensor
    prior: torch.Tensor

    @classmethod
    def build(
        cls, head: Head, expert_features: torch.Tensor, args: MdftTrainingArguments, trained: bool
    ) -> TaskObjective:
        """From the task's own head and, under V views, the expert's embeddings `(V, N, width)`.

        Args:
            trained: The model gets a copy of the head that is trained.
        """
        head = head.to(args.device)
        spec = {"name": args.filter} if isinstance(args.filter, str) else args.filter
        sample_filter = FILTERS.build({**spec, "num_classes": head.num_classes}).to(args.device)
        expert_features = expert_features.to(args.device)
        logits = mean_log_probs(head(expert_features))
        prior = estimate_prior(logits.softmax(dim=-1), args.prior)
        own = head.trainable(args.train_projection) if trained else head
        return cls(own, sample_filter, expert_features.mean(dim=0), logits, prior)

    def terms(
        self, features: torch.Tensor, index: torch.Tensor, args: MdftTrainingArguments
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Terms before their weights, and kept ratios, for features `(n, width)` of the images at `index` `(n,)`.

        A term whose weight is 0 is not computed.
        """
        logits = self.head(features)
        terms, kept = {}, {}
        if args.entropy_weight:
            weights = self.filter(logits)
            scale = max_entropy(self.head.num_classes) if args.normalize_entropy else 1.0
            terms["entropy"] = (weights * entropy(logits)).mean() / scale
            kept["entropy"] = (weights > 0).float().mean()
        if args.distillation_weight:
            expert = self.expert_logits[index]
            weights = agreement_rule(logits, expert) if args.agreement_rule else torch.ones_like(logits[:, 0])
            if args.distillation_distance == "kl":
                distance = expert_divergence(logits, expert, args.distillation_temperature)
            elif args.distillation_distance == "hard":
                distance = hard_distillation(logits, expert)
            else:
                distance = embedding_distance(features, self.expert_features[index])
            terms["distillation"] = (weights * distance).mean()
            kept["distillation"] = weights.mean()
        if args.prior_weight:
            terms["prior"] = prior_divergence(logits, self.prior)
        if args.diversity_weight:
            terms["diversity"] = concentration(logits)
        return terms, kept


class MetaObjective:
    """The sum over tasks of the weighted terms.

    Args:
        tasks: By name, in the order of the batches' task numbers.
        args: The weights.
    """

    def __init__(self, tasks: dict[str, TaskObjective], args: MdftTrainingArguments) -> None:
        self.tasks = tasks
        self.args = args
        self.weight = {
            "entropy": args.entropy_weight,
            "distillation": args.distillation_weight,
            "prior": args.prior_weight,
            "diversity": args.diversity_weight,
        }

    def __call__(
        self, features: torch.Tensor, task: torch.Tensor, index: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss, and what to log: each term averaged over tasks, and kept ratios by task.

        Tasks without a row add nothing to either: a batch's parts with whole tasks sum up to the batch.

        Args:
            features: `(batch, width)`, rows of tasks mixed.
            task: Task number of each row, `(batch,)`.
            index: Row of the task's images that each row is, `(batch,)`.
        """
        loss, logs = features.sum() * 0.0, {}
        for number, (name, objective) in enumerate(self.tasks.items()):
            rows = task == number
            if not rows.any():
                continue
            terms, kept = objective.terms(features[rows], index[rows], self.args)
            for term, value in terms.items():
                loss = loss + self.weight[term] * value
                logs[f"loss_{term}"] = logs.get(f"loss_{term}", 0.0) + value.detach() / len(self.tasks)
            for term, value in kept.items():
                logs[f"kept_{term}/{name}"] = value
        return loss, logs

    def head_parameters(self) -> list[torch.nn.Parameter]:
        """Those that are trained."""
        return [p for task in self.tasks.values() for p in task.head.parameters() if p.requires_grad]

    def _parts(self) -> Iterator[tuple[str, torch.nn.Module]]:
        for name, objective in self.tasks.items():
            yield f"{name}.filter.", objective.filter
            yield f"{name}.head.", objective.head

    def state(self) -> dict[str, torch.Tensor]:
        """Memories of the filters, and heads, for checkpoints."""
        return {
            prefix + key: value.cpu().clone()
            for prefix, part in self._parts()
            for key, value in part.state_dict().items()
        }

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        for prefix, part in self._parts():
            own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            part.load_state_dict(own)
