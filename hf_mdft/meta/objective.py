"""The loss of phase 1: terms of every task, summed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ..core.device import sent
from ..core.errors import InputError
from ..experts import Source
from ..heads import Head
from ..objectives import estimate_prior
from ..trainers.terms import term_weights
from .arguments import MdftTrainingArguments
from .terms import META_TERMS, MetaTerm, TaskBatch


@dataclass
class TaskObjective:
    """The terms of one task, and the expert's outputs that they need.

    Args:
        head: Head of the meta-model, trained or frozen.
        terms: Terms by name, those whose weight is not 0.
        expert_features: Embeddings `(N, width)` of the task's images by its expert (of several, the most trusted); by
            the base without one.
        expert_logits: Log-probabilities `(N, C)` of its experts, of several as one; of the base without one.
        prior: Class prior `(C,)`, estimated from the expert.
    """

    head: Head
    terms: dict[str, MetaTerm]
    expert_features: torch.Tensor
    expert_logits: torch.Tensor
    prior: torch.Tensor

    @classmethod
    def build(cls, head: Head, expert: Source, args: MdftTrainingArguments, trained: bool) -> TaskObjective:
        """The objective of a task.

        Args:
            head: Head that the task came with.
            expert: Outputs of the expert, or of several as one, on the task's images.
            args: Options of phase 1.
            trained: Whether the meta-model gets a copy of the head that is trained.
        """
        head = head.to(args.device)
        terms = {
            name: META_TERMS.get(name)(head.num_classes, args).to(args.device)
            for name in term_weights(args, META_TERMS)
        }
        features, log_probs = expert.features.to(args.device), expert.log_probs.to(args.device)
        prior = estimate_prior(log_probs.softmax(dim=-1), args.prior)
        own = head.trainable(args.train_projection) if trained else head
        return cls(own, terms, features, log_probs, prior)

    def __call__(
        self, features: torch.Tensor, index: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Terms before their weights, and kept ratios.

        Args:
            features: Embeddings of the tower, `(n, width)`.
            index: Rows of the task's images that they belong to, `(n,)`.
        """
        expert = self.expert_features[index], self.expert_logits[index]
        batch = TaskBatch(features, self.head(features), *expert, self.prior)
        values, kept = {}, {}
        for name, term in self.terms.items():
            values[name], share = term(batch)
            if share is not None:
                kept[name] = share
        return values, kept


class MetaObjective:
    """The sum over tasks of the weighted terms.

    Args:
        tasks: Objectives by task, in the order of the batches' task numbers.
        args: Options of phase 1, with the weights.

    Raises:
        InputError: Every weight is 0.
    """

    def __init__(self, tasks: dict[str, TaskObjective], args: MdftTrainingArguments) -> None:
        self.tasks = tasks
        self.weights = term_weights(args, META_TERMS)
        if not self.weights:
            raise InputError("every term of phase 1 has weight 0, so there is nothing to learn; max_steps: 0 merges")

    def __call__(
        self, features: torch.Tensor, task: Sequence[int], index: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss, and what to log: each term averaged over tasks, and kept ratios by task.

        Tasks without a row add nothing to either: a batch's parts with whole tasks sum up to the batch.

        Args:
            features: Embeddings `(batch, width)`, rows of tasks mixed.
            task: Task number of each row. (Not on the device, whose queue would have to run empty to read it.)
            index: Row of the task's images that each row is, `(batch,)`.
        """
        numbers = torch.as_tensor(task)
        counts = numbers.bincount(minlength=len(self.tasks)).tolist()
        rows = sent(numbers.argsort(stable=True), features.device)
        of_task = features.index_select(0, rows).split(counts), index.index_select(0, rows).split(counts)
        found: dict[str, list[torch.Tensor]] = {}
        logs = {}
        for (name, objective), *own in zip(self.tasks.items(), *of_task, strict=True):
            if len(own[0]) == 0:
                continue
            values, kept = objective(*own)
            for term, value in values.items():
                found.setdefault(term, []).append(value)
            logs |= {f"kept_{term}/{name}": value for term, value in kept.items()}
        loss = features.sum() * 0.0
        for term, values in found.items():
            total = torch.stack(values).sum()
            loss = loss + self.weights[term] * total
            logs[f"loss_{term}"] = total.detach() / len(self.tasks)
        return loss, logs

    def head_parameters(self) -> list[torch.nn.Parameter]:
        """Parameters of heads that are trained."""
        return [p for task in self.tasks.values() for p in task.head.parameters() if p.requires_grad]

    def term_modules(self) -> list[MetaTerm]:
        """All terms of all tasks, which may have a memory."""
        return [term for task in self.tasks.values() for term in task.terms.values()]

    def _parts(self) -> Iterator[tuple[str, torch.nn.Module]]:
        for task, objective in self.tasks.items():
            yield f"head/{task}/", objective.head
            for name, term in objective.terms.items():
                yield f"term/{task}/{name}/", term

    def state(self) -> dict[str, torch.Tensor]:
        """Heads and memories of terms, for checkpoints."""
        return {
            prefix + key: value.cpu().clone()
            for prefix, part in self._parts()
            for key, value in part.state_dict().items()
        }

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what `state` gave."""
        for prefix, part in self._parts():
            own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            part.load_state_dict(own)
