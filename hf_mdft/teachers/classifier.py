"""Any image classifier of transformers, as a function from pixels to logits of a task's classes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForZeroShotImageClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES,
)
from transformers.utils import ModelOutput

from ..architectures.output_layers import class_names_of
from ..architectures.texts import check_distinct, is_empty
from ..core.class_names import are_placeholders, plain_name
from ..core.errors import InputError
from ..core.hashing import file_hash
from ..pool import ModelSource
from ..pool.source import PROCESSOR_FILES
from ..tasks import Preprocessor
from .classes import among, columns_of


logger = logging.getLogger(__name__)

Classifier = Callable[[torch.Tensor], torch.Tensor]
"""Log-probabilities `(N, C)` of a task's classes from pixel values."""


def config_of(source: ModelSource) -> PreTrainedConfig:
    """A model's config.

    Raises:
        InputError: It cannot be read, or is no image classifier that transformers has.
    """
    try:
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
    except Exception as error:  # a stranger's file: the parser raises whatever it stumbles over
        raise InputError(f"{source}: no config.json that transformers can read ({type(error).__name__})") from error
    if not is_zero_shot(config) and config.model_type not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        raise InputError(
            f"{source}: model type '{config.model_type}' is no image classifier of transformers; a teacher needs a "
            "ForImageClassification or a zero-shot model such as CLIP or SigLIP"
        )
    if config.problem_type not in (None, "single_label_classification") and not is_zero_shot(config):
        raise InputError(f"{source}: problem_type is {config.problem_type}; a teacher has one label for each image")
    return config


def is_zero_shot(config: PreTrainedConfig) -> bool:
    """Whether classes are told to a model as text, rather than trained."""
    named = any("ForImageClassification" in str(name) for name in getattr(config, "architectures", None) or [])
    return config.model_type in MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES and not named


def matched_columns(config: PreTrainedConfig, class_names: Sequence[str], where: str) -> list[list[int]] | None:
    """Columns of a trained classifier for every class; `None` for a zero-shot model, which takes any.

    Raises:
        InputError: It lacks a class, or does not name its classes.
    """
    if is_zero_shot(config):
        return None
    own = class_names_of(config, where)
    plain = {plain_name(name) for name in own}
    if are_placeholders(own) and not {plain_name(name) for name in class_names} <= plain:
        raise InputError(f"{where}: its config names no classes ('{own[0]}', ...), so they cannot be matched by name")
    if are_placeholders(own):
        logger.warning("%s: names no classes ('%s', ...); they are matched by their numbers", where, own[0])
    return columns_of(class_names, own, where)


@torch.no_grad()
def check_size(source: ModelSource, config: PreTrainedConfig, preprocessor: Preprocessor) -> None:
    """Whether a model reads what its image processor gives, by a model without weights.

    Raises:
        InputError: It does not, or pictures keep their shapes.
    """
    if len(preprocessor.shapes()) > 1:
        raise InputError(f"{source}: its image processor keeps the shape of pictures, and one size is needed")
    try:
        with torch.device("meta"):
            model, pixels = _kind_of(config).from_config(config).eval(), torch.empty(1, *preprocessor.shape)
            (model.get_image_features if is_zero_shot(config) else model)(pixel_values=pixels)
    except Exception as error:  # a model raises whatever it stumbles over
        if isinstance(error, NotImplementedError) or "meta" in str(error):
            return  # what needs values tells when it runs
        reason = " ".join(str(error).split())[:160]
        if isinstance(error, ImportError):
            raise InputError(f"{source}: {reason}") from error
        (size,) = preprocessor.shapes()
        raise InputError(f"{source}: does not take the {size} pixels of its image processor ({reason})") from error


def _kind_of(config: PreTrainedConfig) -> type:
    return AutoModelForZeroShotImageClassification if is_zero_shot(config) else AutoModelForImageClassification


def load_classifier(
    source: ModelSource,
    config: PreTrainedConfig,
    columns: list[list[int]] | None,
    class_names: Sequence[str],
    templates: Sequence[str],
    device: torch.device | str,
) -> Classifier:
    """The model on a device.

    Args:
        source: The model; weights are downloaded where they are not here.
        config: Its config.
        columns: What `matched_columns` gave.
        class_names: Class names of the task.
        templates: Prompts with `{}` for the class name, for zero-shot models.
        device: Device that it runs on.

    Raises:
        InputError: Its weights cannot be read, or lack parts (such as the classifier of a model without one).
    """
    source.fetch()
    try:
        model, info = _kind_of(config).from_pretrained(
            source.folder, config=config, dtype=torch.float32, trust_remote_code=False, use_safetensors=True,
            output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # a stranger's file
        raise InputError(f"{source}: transformers cannot load its weights ({str(error).splitlines()[0]})") from error
    lacking = sorted(info["missing_keys"]) + [str(key[0]) for key in info["mismatched_keys"]]
    if lacking:
        raise InputError(f"{source}: its weights lack '{lacking[0]}', so it is no classifier that was trained")
    model = model.to(device).eval()
    if columns:
        return lambda pixel_values: among(_logits(model(pixel_values=pixel_values)).float(), columns)
    texts, scale = _text_embeddings(model, source, class_names, templates)

    def zero_shot(pixel_values: torch.Tensor) -> torch.Tensor:
        images = F.normalize(_pooled(model.get_image_features(pixel_values=pixel_values)).float(), dim=-1)
        with torch.autocast(images.device.type, enabled=False):  # in half precision, near classes would be equal
            return (scale * images @ texts.T).log_softmax(dim=-1)

    return zero_shot


def tokenizer_of(source: ModelSource) -> PreTrainedTokenizerBase:
    """A zero-shot model's tokenizer.

    Raises:
        InputError: It has none that can be read.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
        empty = is_empty(tokenizer)
    except Exception as error:  # a stranger's file
        raise InputError(f"{source}: no tokenizer that can be read; a zero-shot teacher needs one") from error
    if empty:
        raise InputError(f"{source}: no tokenizer beside it; a zero-shot teacher needs one (tokenizer.json)")
    return tokenizer


def tokens_key(source: ModelSource) -> list[str]:
    """Changes with a model's tokenizer files."""
    files = {file for name in PROCESSOR_FILES if "processor" not in name for file in source.folder.glob(name)}
    return [file_hash(file) for file in sorted(files)]


@torch.no_grad()
def _text_embeddings(
    model: PreTrainedModel, source: ModelSource, class_names: Sequence[str], templates: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit-length embeddings `(C, dim)` of the classes, each the mean over its prompts, and the model's scale."""
    tokenizer = tokenizer_of(source)
    # SigLIP was trained on text padded to its full length, and reads nothing else right.
    padding = "max_length" if "siglip" in model.config.model_type else True
    options, rows, read = getattr(model.config, "text_config", None), [], {}
    length = getattr(options, "max_position_embeddings", None)
    for name in class_names:
        prompts = [template.replace("{}", name) for template in templates]
        tokens = tokenizer(prompts, padding=padding, truncation=True, max_length=length, return_tensors="pt")
        if tokens.input_ids.max() >= getattr(options, "vocab_size", math.inf):
            raise InputError(f"{source}: its tokenizer has more tokens than its text tower; add its own")
        read[name] = tokens.input_ids
        found = model.get_text_features(**{key: value.to(model.device) for key, value in tokens.items()})
        rows.append(F.normalize(F.normalize(_pooled(found).float(), dim=-1).mean(dim=0), dim=0))
    check_distinct(read, str(source))
    return torch.stack(rows), scale_of(model)


def scale_of(model: PreTrainedModel) -> torch.Tensor:
    """What cosines are multiplied with: CLIP and its kin keep its logarithm, ALIGN its inverse; 100 without either."""
    if (scale := getattr(model, "logit_scale", None)) is not None:
        return scale.detach().float().exp()
    temperature = getattr(model, "temperature", None)
    return torch.tensor(100.0) if temperature is None else 1 / temperature.detach().float()


def _logits(outputs: ModelOutput) -> torch.Tensor:
    return outputs.logits if "logits" in outputs else outputs.last_hidden_state  # PP-LCNet's have another name


def _pooled(found: torch.Tensor | object) -> torch.Tensor:
    return found if isinstance(found, torch.Tensor) else found.pooler_output
