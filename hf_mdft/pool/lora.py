"""LoRA adapters as experts: what they add to the base, one tensor at a time."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig
from peft.utils import CONFIG_NAME
from peft.utils.other import get_pattern_key
from safetensors import safe_open
from transformers import PreTrainedConfig, PreTrainedModel

from ..architectures import Architecture, read_config
from ..architectures.output_layers import adapted_config, classifier_of, new_classifier, output_layers
from ..core.errors import InputError
from .headers import DTYPES, read_header
from .source import ModelSource
from .weights import TowerWeights


logger = logging.getLogger(__name__)

PREFIX = "base_model.model."
"""Begins all keys of an adapter's file."""

PLAIN = frozenset(
    {
        "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "eva_config", "exclude_modules",
        "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout",
        "modules_to_save", "peft_type", "peft_version", "r", "rank_pattern", "revision", "runtime_config",
        "target_modules", "task_type", "use_rslora",
    }
)  # fmt: skip
"""Options that leave an adapter a plain product of two factors beside the base's own weights."""

MODULE, ORIGINAL = ".modules_to_save.", ".original_module."
"""Parts of PEFT's names of whole modules."""

PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Starts of the factors that leave the base as it is (PiSSA and others change it)."""


class Lora:
    """A LoRA adapter (Hu et al. 2022, https://huggingface.co/papers/2106.09685), with ranks and alphas by pattern,
    rsLoRA (https://huggingface.co/papers/2312.03732), trained biases and whole modules (`modules_to_save`).

    Args:
        source: The adapter.

    Raises:
        InputError: Its files cannot be read, or it is of a kind that is more than factors beside the base's weights.
    """

    def __init__(self, source: ModelSource) -> None:
        self.source = source
        self.config = _read(source)
        self.header = read_header(source)
        keys = {}
        for key in sorted(self.header, key=lambda key: MODULE in key):
            if ORIGINAL not in key:  # of bias="all": what a whole module took the place of, and itself once more
                keys.setdefault(key.removeprefix(PREFIX).replace(".base_layer.", ".").replace(MODULE, "."), key)
        self.factors = sorted(key.removesuffix(".lora_A.weight") for key in keys if key.endswith(".lora_A.weight"))
        """Modules that have factors, as the adapted model names them."""
        self.whole = {key: full for key, full in keys.items() if ".lora_" not in key}
        """Tensors that replace the base's, by their names in the adapted model."""
        expected = {f"{module}.lora_{part}.weight" for module in self.factors for part in "AB"}
        odd = sorted(keys.keys() - self.whole.keys() - expected) + sorted(expected - keys.keys())
        if odd or not self.factors:
            what = f"'{odd[0]}' is no factor of a linear layer, or lacks the other" if odd else "no LoRA factors in it"
            raise InputError(f"{source}: {what}; {self._advice}")
        for module in self.factors:
            rank, option = self.shape(module, "A")[0], self._option(module, "rank_pattern", self.config.r)
            if rank != option:
                raise InputError(f"{source}: '{module}' has rank {rank} in its file, {option} in {CONFIG_NAME}")
        for key, found in self.header.items():
            if found.dtype not in DTYPES and not key.endswith(".num_batches_tracked"):
                raise InputError(
                    f"{source}: tensor '{key}' is stored as {found.dtype}; take one in fp32, fp16 or bf16"
                )

    @property
    def _advice(self) -> str:
        return _advice(self.source)

    def shape(self, module: str, part: str) -> tuple[int, ...]:
        """Shape of a factor."""
        return self.header[f"{PREFIX}{module}.lora_{part}.weight"].shape

    def scaling(self, module: str) -> float:
        """Factor of the product, as peft has it."""
        alpha, rank = self._option(module, "alpha_pattern", self.config.lora_alpha), self.shape(module, "A")[0]
        return alpha / (math.sqrt(rank) if self.config.use_rslora else rank)

    def _option(self, module: str, patterns: str, default: float) -> float:
        chosen = getattr(self.config, patterns) or {}
        return chosen.get(get_pattern_key(chosen.keys(), module), default)

    def model_config(self, base: PreTrainedConfig) -> PreTrainedConfig:
        """Config of the adapted model: the base's, with the class and classes that the adapter was trained with."""
        name = (self.config.auto_mapping or {}).get("base_model_class")
        rows = {key: self.header[full].shape[0] for key, full in self.whole.items() if self.header[full].shape}
        has_own = (self.source.folder / "config.json").is_file()
        own = read_config(self.source.folder, str(self.source)) if has_own else None
        return adapted_config(base, name, rows, own, str(self.source))

    def check_base(self, base: ModelSource) -> None:
        """Whether the adapter names the pool's base as its own, as far as names can tell.

        Raises:
            InputError: It names another repo, or another commit of the same.
        """
        named, revision = self.config.base_model_name_or_path, self.config.revision
        if not named:
            logger.warning("%s: %s names no base; %s is taken for it", self.source, CONFIG_NAME, base)
        elif Path(named).is_dir() != base.reference.is_local:
            logger.warning(
                "%s: trained on '%s', which cannot be compared with the pool's base %s", self.source, named, base
            )
        elif base.reference.is_local:
            if Path(named).resolve() != Path(base.reference.id).resolve():
                raise InputError(_of_another(self.source, named, base))
        elif named != base.reference.id:
            raise InputError(_of_another(self.source, named, base))
        elif revision and len(revision) == 40 and revision != base.reference.revision:
            raise InputError(_of_another(self.source, f"{named}@{revision}", base))

    def check(
        self, architecture: Architecture, tower: PreTrainedModel, outside: list[str], config: PreTrainedConfig
    ) -> None:
        """Whether all that the adapter changes is in the pool's tower, or is its classifier.

        Args:
            architecture: Architecture of the pool.
            tower: A tower of the right shapes (the meta device will do).
            outside: Names of tensors of the complete base.
            config: Config of the adapted model.

        Raises:
            InputError: It changes something else, or has other shapes.
        """
        names = _names(architecture, tower, self)
        shapes = {name: tuple(tensor.shape) for name, tensor in tower.state_dict().items()}
        layers = output_layers(config) if classifier_of(config) else []
        for module in self.factors:
            key = f"{module}.weight"
            if key in names:
                (rows, *_), (_, *columns) = self.shape(module, "B"), self.shape(module, "A")
                if (rows, *columns) != shapes[names[key]]:
                    raise InputError(
                        f"{self.source}: '{module}' adds a tensor of shape {(rows, *columns)}, the base has "
                        f"{shapes[names[key]]}"
                    )
            elif module in layers:
                raise InputError(f"{self.source}: it adapts the classifier '{module}'; {self._advice}")
            elif any(name.endswith(key) for name in outside):
                logger.warning("%s: it also changes '%s', which all experts take from the base", self.source, module)
            else:
                raise InputError(f"{self.source}: it adapts '{module}', which the pool's base does not have")
        wanted = dict(shapes)
        if layers:
            with torch.device("meta"):
                wanted |= {n: tuple(t.shape) for n, t in new_classifier(config).state_dict().items()}
        for layer in layers:
            brought = [f"{layer}.{part}" in self.whole for part in ("weight", "bias")]
            if any(brought) and not all(brought):
                lacks = f"{layer}.{'weight' if brought[1] else 'bias'}"
                raise InputError(f"{self.source}: it brings a classifier without '{lacks}'; take another revision")
        for key, full in self.whole.items():
            name, found = names.get(key, key), self.header[full].shape
            if name in wanted and found != wanted[name]:
                raise InputError(f"{self.source}: it brings '{key}' of shape {found}, the model has {wanted[name]}")
            if name in wanted:
                continue
            if not any(other.endswith(key) for other in outside):
                raise InputError(f"{self.source}: it brings '{key}', which the pool's base does not have")
            logger.warning("%s: it also brings '%s', which all experts take from the base", self.source, key)


class LoraWeights:
    """What `TowerWeights` is for a whole model: the base's tensors with an adapter's products added, in fp32, one at a
    time.

    Args:
        adapter: The adapter; its weights are here.
        base: Weights of the base.
        architecture: Architecture of the pool.
        tower: A tower of the right shapes (the meta device will do).
    """

    wrapped = False

    def __init__(self, adapter: Lora, base: TowerWeights, architecture: Architecture, tower: PreTrainedModel) -> None:
        self.source, self._adapter, self._base = adapter.source, adapter, base
        names = _names(architecture, tower, adapter)
        self._modules = {names[key]: m for m in adapter.factors if (key := f"{m}.weight") in names}
        self._replaced = {names[key]: key for key in adapter.whole if key in names}
        (file,) = adapter.source.weights
        self._file = safe_open(adapter.source.folder / file, framework="pt")

    def keys(self) -> list[str]:
        """Keys of whole tensors: the adapter's, and the base's others."""
        return [*self._adapter.whole, *(key for key in self._base.keys() if key not in self._adapter.whole)]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tower's parameters, by name; nothing is read."""
        return self._base.shapes()

    def raw(self, key: str) -> torch.Tensor:
        """A whole tensor by its key, in fp32."""
        full = self._adapter.whole.get(key)
        return self._base.raw(key) if full is None else self._checked(full)

    def tensor(self, name: str) -> torch.Tensor:
        """A tower tensor by its name in the tower.

        Raises:
            InputError: It holds NaN or infinity.
        """
        found = self._base.tensor(name) if name not in self._replaced else self.raw(self._replaced[name])
        module = self._modules.get(name)
        if module is None:
            return found
        a, b = (self._checked(f"{PREFIX}{module}.lora_{part}.weight") for part in "AB")
        product = b.flatten(1) @ a.flatten(1)  # of a convolution, b is 1 x 1
        return found + self._adapter.scaling(module) * product.view(found.shape)

    def items(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All of the tower's tensors: parameters and buffers."""
        return ((name, self.tensor(name)) for name, _ in self._base.items())

    def parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The tower's parameters, which are what task vectors are made of."""
        return ((name, self.tensor(name)) for name in self.shapes())

    def _checked(self, key: str) -> torch.Tensor:
        tensor = self._file.get_tensor(key).float()
        if not torch.isfinite(tensor).all():
            raise InputError(f"{self.source}: tensor '{key}' holds NaN or infinity; take another revision")
        return tensor


def _names(architecture: Architecture, tower: PreTrainedModel, adapter: Lora) -> dict[str, str]:
    """Key in the adapted model -> name in the tower, of what the adapter changes."""
    keys = [*(f"{module}.weight" for module in adapter.factors), *adapter.whole]
    return {key: name for name, key in architecture.canonical_names(tower, keys).items()}


def _read(source: ModelSource) -> LoraConfig:
    try:
        config = PeftConfig.from_pretrained(source.folder)
    except Exception as error:  # a stranger's file: the parser raises whatever it stumbles over
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise InputError(f"{source}: {CONFIG_NAME} cannot be read ({reason[:120]})") from error
    if type(config) is not LoraConfig:
        raise InputError(f"{source}: an adapter of type {config.peft_type}, not LoRA; {_advice(source)}")
    usual = LoraConfig()
    for key, value in vars(config).items():
        if key not in PLAIN and value and value != getattr(usual, key, None):
            raise InputError(f"{source}: a LoRA adapter with {key}; {_advice(source)}")
    if config.init_lora_weights not in PLAIN_STARTS:
        raise InputError(
            f"{source}: a LoRA adapter with init_lora_weights: {config.init_lora_weights}; {_advice(source)}"
        )
    return config


def _advice(source: ModelSource) -> str:
    return f"'hf-mdft pool convert {source} FOLDER' makes a complete model of it, which can be an expert"


def _of_another(source: ModelSource, named: str, base: ModelSource) -> str:
    return (
        f"{source}: an adapter of {named}, not of the pool's base {base}; give its own base "
        "(--allow-base-mismatch takes it)"
    )
