"""The layers of an image classifier that give its classes, found without knowing their names."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import lru_cache

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from ..core.errors import InputError


CLASSES: dict[str, tuple[str, ...]] = {
    model_type: (names,) if isinstance(names, str) else tuple(names)
    for model_type, names in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.items()
}
"""Names of transformers' image classifiers, by model type."""


def classifier_of(config: PreTrainedConfig) -> str | None:
    """Name of the image classifier that a config was saved with; `None` for another kind of model, or none."""
    if config.model_type == "timm_wrapper":  # timm's own configs name no class of transformers
        return CLASSES["timm_wrapper"][0]
    known = CLASSES.get(config.model_type, ())
    return next((name for name in getattr(config, "architectures", None) or () if name in known), None)


def classifier_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The image classifier for a config: the one that it was saved with, or the first of its type."""
    return getattr(transformers, classifier_of(config) or CLASSES[config.model_type][0])


def new_classifier(config: PreTrainedConfig) -> PreTrainedModel:
    """A classifier of a config.

    Raises:
        InputError: It needs a package that is not here, or its config makes no model; the message does not name it.
    """
    try:
        return classifier_class(config)(copy.deepcopy(config))  # some models change the config that they are made of
    except ImportError as error:
        raise InputError(" ".join(str(error).split())) from error
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"its config makes no model ({' '.join(str(error).split())[:200]})") from error


def output_layers(config: PreTrainedConfig) -> list[str]:
    """Names of the layers whose shapes depend on the number of classes, in the order of the model.

    Raises:
        InputError: There is none, or one is no linear layer with a bias.
    """
    return list(_output_layers(config.to_json_string(use_diff=False), type(config), classifier_class(config)))


@lru_cache(maxsize=32)
def _output_layers(
    content: str, config_class: type[PreTrainedConfig], model_class: type[PreTrainedModel]
) -> tuple[str, ...]:
    config = config_class.from_dict(json.loads(content))
    sizes = []
    for count in (2, 3):
        with torch.device("meta"):
            model = new_classifier(with_classes(config, [f"class {number}" for number in range(count)]))
        sizes.append({name: tensor.shape for name, tensor in model.state_dict().items()})
    changed = {name.rpartition(".")[0] for name in sizes[0] if sizes[0][name] != sizes[1].get(name)}
    found = [name for name, _ in model.named_modules() if name in changed]
    for name in found:
        layer = model.get_submodule(name)
        if not isinstance(layer, nn.Linear) or layer.bias is None:
            raise InputError(f"'{name}' of {model_class.__name__} is no linear layer with a bias")
    if not found:
        raise InputError(f"{model_class.__name__} has no layer of classes")
    return tuple(found)


def class_names_of(config: PreTrainedConfig, where: str) -> list[str]:
    """Names of a classifier's classes, in the order of its logits; numbers are written out.

    Args:
        config: Its config.
        where: Names the model in messages.

    Raises:
        InputError: They are not numbered 0, 1, 2, ..., or one is no name.
    """
    found = config.id2label
    if sorted(found) != list(range(len(found))):
        shown = ", ".join(map(str, sorted(found)[:4])) + (", ..." if len(found) > 4 else "")
        raise InputError(
            f"{where}: id2label in config.json numbers the classes {shown}, not 0, 1, 2, ..., so it is not known "
            "which output is which; correct it"
        )
    for number in range(len(found)):
        if not isinstance(found[number], str | int | float):
            raise InputError(
                f"{where}: id2label in config.json calls class {number} {found[number]!r:.40}; correct it"
            )
    return [str(found[number]) for number in range(len(found))]


def with_classes(config: PreTrainedConfig, names: list[str]) -> PreTrainedConfig:
    """A copy of a config with other classes."""
    config = copy.deepcopy(config)
    config.num_labels, config.problem_type = len(names), None
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in config.id2label.items()}
    return config


def adapted_config(
    base: PreTrainedConfig, name: str | None, rows: Mapping[str, int], own: PreTrainedConfig | None, where: str
) -> PreTrainedConfig:
    """Config of a model that an adapter makes of a base.

    Args:
        base: Config of the base.
        name: Class of the model that the adapter was trained on, where it says so.
        rows: Rows of tensors that it brings along, by name; those of an output layer are its classes.
        own: A config beside the adapter, which may name the classes.
        where: Names the adapter in messages.

    Raises:
        InputError: See `class_names_of`.
    """
    config = copy.deepcopy(base)
    if name is not None:
        config.architectures = [name]
    elif rows:
        first = classifier_of(base)
        for known in ([first] if first else []) + list(CLASSES.get(base.model_type, ())):
            config.architectures = [known]
            if all(f"{layer}.weight" in rows for layer in output_layers(config)):
                break
        else:
            config = copy.deepcopy(base)
    if classifier_of(config) is None:
        return config
    counts = [rows[f"{layer}.weight"] for layer in output_layers(config) if f"{layer}.weight" in rows]
    if not counts:
        return config
    names = [] if own is None else class_names_of(own, where)
    return with_classes(config, names if len(names) == counts[0] else [f"LABEL_{i}" for i in range(counts[0])])


class Place(nn.Module):
    """Puts what an output layer would read in its place among those of all output layers.

    A classifier with several output layers (DeiT with a teacher, SwiftFormer) gives the mean of what they say. With
    these in their place it gives the mean of vectors that are 0 elsewhere: what all of them read, side by side.

    Args:
        number: Number of the layer.
        count: Number of the layers.
    """

    def __init__(self, number: int, count: int) -> None:
        super().__init__()
        self.number, self.count = number, count

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        width = features.shape[-1]
        before, behind = self.number * width, (self.count - 1 - self.number) * width
        return nn.functional.pad(features, (before, behind)) * (1.0 if self.count == 1 else self.count)


def embedding_model(classifier: PreTrainedModel, layers: list[str]) -> PreTrainedModel:
    """The classifier, changed to give as logits what its output layers read: `(batch, width)`."""
    for number, name in enumerate(layers):
        classifier.set_submodule(name, Place(number, len(layers)))
    return classifier
