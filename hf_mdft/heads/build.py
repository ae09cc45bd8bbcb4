"""The head that a task asks for."""

from __future__ import annotations

from ..architectures.base import read_config
from ..core.errors import InputError
from ..pool import ModelPool
from ..tasks import Task
from ..tasks.source import open_dataset
from .base import HEADS, Head, load_head
from .linear import LinearHead
from .templates import resolve_templates
from .zero_shot import ZeroShotHead


def build_head(name: str, task: Task, pool: ModelPool) -> Head:
    """The task's head: as given, from a file, from the expert's classifier, or from the class names.

    Raises:
        InputError: The head cannot be made; the message says what is missing.
    """
    where = f"task '{name}'"
    spec = task.head or pool.architecture.default_head
    if isinstance(spec, Head):
        head = spec
    elif spec == "linear":
        head = _expert_classifier(name, task, pool, where)
    elif spec == "zero_shot":
        head = _from_text(task, pool, where)
    elif str(spec).endswith(".safetensors"):
        head = load_head(spec, task.class_names)
    else:
        HEADS.get(spec)
        raise InputError(f"{where}: head '{spec}' must be given as a file or a Head")
    if task.class_names and len(task.class_names) != head.num_classes:
        raise InputError(f"{where}: {len(task.class_names)} class_names, but the head has {head.num_classes} classes")
    return head


def _expert_classifier(name: str, task: Task, pool: ModelPool, where: str) -> Head:
    if name not in pool.experts:
        raise InputError(f"{where}: no expert, so no linear head of its own; give head: FILE.safetensors")
    source, weights = pool.experts[name], pool.weights(name)
    for key in ("classifier.weight", "classifier.bias"):
        if key not in weights.keys():
            raise InputError(f"{source}: no '{key}' for the linear head of {where}; give head: FILE.safetensors")
    weight = weights.raw("classifier.weight")
    labels = read_config(source.folder, str(source)).id2label
    names = task.class_names or [labels[index] for index in sorted(labels)]
    if len(names) != len(weight):
        raise InputError(
            f"{where}: {len(names)} class names, but the classifier of {source} has {len(weight)} classes"
        )
    return LinearHead(names, weight=weight, bias=weights.raw("classifier.bias"))


def _from_text(task: Task, pool: ModelPool, where: str) -> Head:
    if pool.config.model_type != "clip":
        raise InputError(
            f"{where}: a zero-shot head needs a base with a text tower (CLIPModel), {pool.base} is "
            f"'{pool.config.model_type}'; use head: linear or a file"
        )
    names = task.class_names or _dataset_names(task, where)
    if not names:
        raise InputError(f"{where}: no class_names, and the dataset does not name its classes")
    pool.fetch()
    return ZeroShotHead.from_text(pool.base.folder, names, resolve_templates(task.templates, where))


def _dataset_names(task: Task, where: str) -> list[str] | None:
    """Names in the dataset's features: metadata, no label is read."""
    for setting, spec in (("unlabelled", task.unlabelled), ("evaluation", task.evaluation)):
        if spec is not None:
            feature = open_dataset(spec, f"{where}, {setting}").features.get(task.label_column)
            if getattr(feature, "names", None):
                return feature.names
    return None
