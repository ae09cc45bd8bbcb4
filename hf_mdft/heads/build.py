"""A task's head, from what its options name."""

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

    Args:
        name: Name of the task.
        task: Options of the task.
        pool: Pool of the task: base, and the expert where there is one.

    Raises:
        InputError: The head cannot be made, with what is missing.
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
    source = pool.experts[name]
    config = read_config(source.folder, str(source))
    weight, bias, own_names = pool.architecture.classifier(pool.weights(name), config, where)
    names = task.class_names or own_names
    if len(names) != len(weight):
        raise InputError(
            f"{where}: {len(names)} class names, but the classifier of {source} has {len(weight)} classes"
        )
    return LinearHead(names, weight=weight, bias=bias)


def _from_text(task: Task, pool: ModelPool, where: str) -> Head:
    names = task.class_names or _dataset_names(task, where)
    if not names:
        raise InputError(f"{where}: no class_names, and the dataset does not name its classes")
    templates = resolve_templates(task.templates, where)
    if pool.architecture.has_text_tower(pool.config):  # else it is refused below, before anything is downloaded
        pool.fetch()
    return ZeroShotHead(names, **pool.architecture.text_embeddings(pool.base.folder, names, templates, where))


def _dataset_names(task: Task, where: str) -> list[str] | None:
    """Names in the dataset's features: metadata, no label is read."""
    for setting, spec in (("unlabelled", task.unlabelled), ("evaluation", task.evaluation)):
        if spec is not None:
            feature = open_dataset(spec, f"{where}, {setting}").features.get(task.label_column)
            if getattr(feature, "names", None):
                return feature.names
    return None
