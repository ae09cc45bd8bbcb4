"""A task's head, from what its options name."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from ..core.class_names import (
    are_placeholders,
    missing_classes,
    no_words,
    order_by_name,
    plain_name,
    positions,
    same_classes,
)
from ..core.errors import InputError
from ..pool import ModelPool
from ..tasks import Task
from ..tasks.source import open_dataset
from .base import HEADS, Head, check_finite, load_head
from .linear import LinearHead
from .templates import resolve_templates
from .zero_shot import SigmoidHead, ZeroShotHead


logger = logging.getLogger(__name__)


def build_head(name: str, task: Task, pool: ModelPool) -> Head:
    """The task's head: as given, from a file, from its experts' classifiers (their mean, where there are several), or
    from the class names.

    Args:
        name: Name of the task.
        task: Options of the task.
        pool: Pool of the task: base, and experts where there are any.

    Raises:
        InputError: The head cannot be made, with what is missing.
    """
    where = f"task '{name}'"
    spec = task.head or pool.architecture.default_head
    if isinstance(spec, Head):
        head = spec
    elif spec == "linear":
        head = mean_head(list(_classifiers(name, task, pool).values()))
    elif spec == "zero_shot":
        head = _from_text(task, pool, where)
    elif str(spec).endswith(".safetensors"):
        head = load_head(spec, task.class_names)
    else:
        HEADS.get(spec)
        raise InputError(f"{where}: head '{spec}' must be given as a file or a Head")
    check_finite(head, f"{where}: its head ({spec})")
    if head.num_classes < 2:
        raise InputError(f"{where}: its head ({spec}) has one class, which leaves nothing to learn; give two or more")
    width = pool.width
    if None not in (width, head.width) and width != head.width:
        raise InputError(f"{where}: its head ({spec}) reads {head.width} numbers, the pool's towers give {width}")
    return head if task.class_names is None else head.named(task.class_names, where)


def build_expert_heads(name: str, task: Task, pool: ModelPool, head: Head) -> dict[str, Head]:
    """Head of each of the task's experts: its own classifier, with the classes in the task's order, where the task has
    linear heads; else the task's.

    Args:
        name, task, pool: As in `build_head`.
        head: The task's head.
    """
    experts = pool.experts_of(name)
    own = len(experts) > 1 and (task.head or pool.architecture.default_head) == "linear"
    return _classifiers(name, task, pool) if own else dict.fromkeys(experts, head)


def mean_head(heads: Sequence[Head]) -> Head:
    """The mean of heads of one kind with the same classes."""
    if len(heads) == 1:
        return heads[0]
    tensors = [dict(head.state_dict()) for head in heads]
    means = {name: torch.stack([found[name] for found in tensors]).mean(dim=0) for name in tensors[0]}
    return type(heads[0])(heads[0].class_names, **means)


def _classifiers(name: str, task: Task, pool: ModelPool) -> dict[str, Head]:
    """The experts' own classifiers, all with the classes of the first, or of `class_names`, in that order."""
    where = f"task '{name}'"
    experts = pool.experts_of(name)
    if not experts:
        raise InputError(f"{where}: no expert, so no linear head of its own; give head: FILE.safetensors")
    heads: dict[str, Head] = {}
    for expert in experts:
        source = pool.experts[expert]
        weight, bias, own = pool.architecture.classifier(pool.weights(expert), pool.expert_config(expert), where)
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise InputError(f"{source}: its classifier holds NaN or infinity; take another revision")
        if len(own) != len(weight):
            raise InputError(f"{source}: its config names {len(own)} classes, its classifier has {len(weight)}")
        if not heads:
            first = own
            names = task.class_names or own
            if len(names) != len(weight):
                raise InputError(
                    f"{where}: {len(names)} class names, but the classifier of {source} has {len(weight)} classes"
                )
            rows = positions(names, own, f"{where}: class_names", f"the classifier of {source}")
            wanted = [own[row] for row in rows]
        elif not same_classes(first, own):
            others = missing_classes(own, first) or missing_classes(first, own)
            what = f"class '{others[0]}'" if others else f"{len(own)} classes, not {len(first)}"
            advice = "take it out of the task, or name it under 'teachers'"
            if are_placeholders(own) or are_placeholders(first):
                advice = "a config.json beside an adapter names its classes (model.config.save_pretrained)"
            raise InputError(
                f"{where}: the classes of {source} are not those of {pool.experts[experts[0]]} ({what}); {advice}"
            )
        elif are_placeholders(own):
            logger.warning(
                "%s: %s and %s name no classes ('%s', ...); they are matched by their numbers",
                where, pool.experts[experts[0]], source, own[0],
            )  # fmt: skip
        rows = torch.tensor(order_by_name(wanted, own))
        heads[expert] = LinearHead(names, weight=weight[rows], bias=bias[rows])
    return heads


def _from_text(task: Task, pool: ModelPool, where: str) -> Head:
    names = task.class_names or _dataset_names(task, where)
    advice = "write class_names: [NAME, ...], in the order of the labels"
    if not names:
        raise InputError(f"{where}: no class_names, and the dataset does not name its classes; {advice}")
    if task.class_names is None and (what := no_words(names)):
        shown = ", ".join(map(str, names[:4])) + (", ..." if len(names) > 4 else "")
        raise InputError(
            f"{where}: the dataset's names of classes are {what} ({shown}), of which no text can be made; {advice}, "
            "and label_names: in_order"
        )
    plain = [plain_name(name) for name in names]
    if twice := next((name for name in names if plain.count(plain_name(name)) > 1), None):
        raise InputError(f"{where}: two classes are called '{twice}', whose texts are the same; tell them apart")
    templates = resolve_templates(task.templates, where)
    if pool.architecture.has_text_tower(pool.config):  # else it is refused below, before anything is downloaded
        pool.fetch()
    tensors = pool.architecture.text_embeddings(pool.base.folder, names, templates, where)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise InputError(f"{where}: {name} of the base {pool.base} holds NaN or infinity; take another revision")
    return (SigmoidHead if "logit_bias" in tensors else ZeroShotHead)(names, **tensors)


def _dataset_names(task: Task, where: str) -> list[str] | None:
    """Names in the dataset's features: metadata, no label is read."""
    for setting, spec in (("unlabelled", task.unlabelled), ("evaluation", task.evaluation)):
        if spec is not None:
            feature = open_dataset(spec, f"{where}, {setting}").features.get(task.label_column)
            if getattr(feature, "names", None):
                return feature.names
    return None
