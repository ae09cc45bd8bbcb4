"""The PEFT tuner: wraps the tower's modules and hands each its task vectors."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from ..core.errors import InputError
from ..transforms import TRANSFORMS
from .config import MdftConfig
from .layer import MdftLayer, running_statistics


logger = logging.getLogger(__name__)


HALF_PRECISION = 2.0**-7
"""Rounding of a base that was loaded in bfloat16, of a tensor's largest value."""

SMALLEST = 2.0**-24
"""Smallest number above 0 in fp16, to whose multiples small numbers are rounded."""


class MdftModel(BaseTuner):
    """A model whose tower is `theta_0 + sum_k lambda_k Phi(theta_k - theta_0)`; only lambda is trainable.

    The experts are read from the pool that the config refers to; the saved adapter holds the coefficients alone.

    Example:

        >>> import hf_mdft
        >>> from peft import get_peft_model
        >>> from transformers import CLIPVisionModel
        >>> base = CLIPVisionModel.from_pretrained("openai/clip-vit-base-patch32")
        >>> model = get_peft_model(base, hf_mdft.MdftConfig(pool=pool.reference(), granularity="tensor"))
        >>> model.print_trainable_parameters()
    """

    prefix = "mdft_"
    tuner_layer_cls = MdftLayer
    target_module_mapping = {}

    def inject_adapter(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().inject_adapter(*args, **kwargs)
        finally:
            self._base = None  # open files, which nothing can copy

    def _prepare_adapter_config(self, peft_config: MdftConfig, model_config: dict) -> MdftConfig:
        # Not above: importing PEFT imports this module, whoever does it, the pool's modules included.
        from ..pool import ModelPool

        if peft_config.pool is None:
            raise InputError("MdftConfig needs a pool: MdftConfig(pool=pool.reference())")
        pool = ModelPool.from_reference(peft_config.pool)
        if not pool.base.reference.is_local:
            # What loads the base by itself (`AutoPeftModel`) must not take another commit than the pool's.
            peft_config.revision = pool.base.reference.revision
        self._architecture = pool.architecture
        self._vectors = pool.vectors(peft_config.transform)
        self._base = pool.base_weights()
        self._depths = pool.depths()
        self._owners: dict[int, MdftLayer] = {}
        self._tower_name, tower = self._architecture.find_tower(self.model)
        if peft_config.tower not in (None, self._tower_name):
            # Coefficients are saved by module name; loading them elsewhere would leave them at their start, silently.
            raise InputError(
                f"this adapter was saved for {_place(peft_config.tower, tower)}, not for "
                f"{_place(self._tower_name, tower)}; load it on that model"
            )
        peft_config.tower = self._tower_name
        prefix = f"{self._tower_name}." if self._tower_name else ""
        outside = {prefix + name for name in self._architecture.output_layers(tower)}
        unread = tuple(f"{prefix}{part}." for part in self._architecture.unread_parts)
        owners = [name for name in parameter_owners(tower, self._tower_name) if not f"{name}.".startswith(unread)]
        self._owning = set(owners) - outside
        peft_config.target_modules = set(self._owning)
        return peft_config

    def _check_target_module_exists(self, peft_config: MdftConfig, key: str) -> bool:
        # Not PEFT's, which takes every module whose name ends as a target's: `norm` is also `block.norm`.
        return key in self._owning

    def _create_and_replace(
        self,
        peft_config: MdftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        layer = target if isinstance(target, MdftLayer) else MdftLayer(target)
        tower_key = current_key.removeprefix(self._tower_name).lstrip(".")
        names = {name: f"{tower_key}.{name}" for name, _ in layer.base_layer.named_parameters()}
        base = peft_config.pool["base"]["id"]
        self._check_shapes(layer, names, base)
        if not layer.merged and not peft_config.allow_base_mismatch:
            self._check_values(layer, names, base)
        owner, rows = None, len(names)
        if peft_config.granularity != "tensor":
            depth = self._depths[next(iter(names.values()))]
            group = depth if peft_config.granularity == "layer" else 0
            owner, rows = self._owners.get(group), 1
            self._owners.setdefault(group, layer)
        layer.update_layer(
            adapter_name, self._vectors, names, owner, rows, peft_config.start, peft_config.inference_mode
        )
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)

    def _check_shapes(self, layer: MdftLayer, names: dict[str, str], base: str) -> None:
        known = set(self._vectors.names())
        for name, parameter in layer.base_layer.named_parameters():
            tensor = names[name]
            if tensor not in known or self._vectors.stack(tensor).shape[1:] != parameter.shape:
                raise InputError(
                    f"the pool's base {base} has no tensor '{tensor}' of shape {tuple(parameter.shape)}; "
                    "wrap the base model that the pool was built on"
                )

    def _check_values(self, layer: MdftLayer, names: dict[str, str], base: str) -> None:
        """Whether the layer has the base's weights: task vectors added to others give a model that knows nothing."""
        for name, parameter in layer.base_layer.named_parameters():
            if parameter.is_meta:
                continue  # its weights come later
            wanted = self._base.tensor(names[name]).to(parameter.device)
            rounding = HALF_PRECISION * wanted.abs().max() + SMALLEST
            if not (parameter.detach().float() - wanted).abs().max() <= rounding:  # or NaN
                raise InputError(
                    f"'{names[name]}' of this model is not that of the pool's base {base}: the same size is not the "
                    "same model; load the adapter on that base (MdftConfig(allow_base_mismatch=True) takes any)"
                )

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        # PEFT's own version copies `.weight` on unloading, which modules with bare parameters do not have.
        setattr(parent, child_name, new_module)

    def add_weighted_adapter(self, adapters: list[str], weights: list[float], adapter_name: str) -> None:
        """Add an adapter whose coefficients are a weighted sum of other adapters'.

        It is exact for weights, which are linear in the coefficients. Running statistics (BatchNorm) are not: a sole
        adapter's are taken over, and for other sums those of the base stay, of which it warns.

        Args:
            adapters: Adapters of one pool, transform and granularity.
            weights: Factors, one for each adapter.
            adapter_name: Name of the new adapter. An adapter of that name stays as it is.

        Raises:
            InputError: Unknown adapters, or adapters that do not share pool, transform and granularity.
        """
        if adapter_name in self.peft_config:
            return
        if len(adapters) != len(weights) or not adapters:
            raise InputError(f"add_weighted_adapter: {len(adapters)} adapters and {len(weights)} weights")
        for name in adapters:
            if name not in self.peft_config:
                raise InputError(f"add_weighted_adapter: no adapter '{name}'; there are {list(self.peft_config)}")
        first, *others = (self.peft_config[name] for name in adapters)
        if any(_space(other) != _space(first) for other in others):
            raise InputError(f"add_weighted_adapter: {adapters} differ in pool, transform or granularity")
        self.peft_config[adapter_name] = copy.deepcopy(first)
        self.inject_adapter(self.model, adapter_name)
        for layer in self.model.modules():
            if isinstance(layer, MdftLayer) and adapter_name in layer.mdft_lambda:
                terms = [w * layer.mdft_lambda[name].data for name, w in zip(adapters, weights, strict=True)]
                layer.mdft_lambda[adapter_name].data = torch.stack(terms).sum(dim=0)
        self._take_statistics(adapters, weights, adapter_name)

    def _take_statistics(self, adapters: list[str], weights: list[float], adapter_name: str) -> None:
        """Running statistics of an adapter that is a weighted sum of others."""
        layers = [layer for layer in self.model.modules() if isinstance(layer, MdftLayer) and layer.mdft_statistics]
        if len(adapters) == 1 and weights[0] == 1:
            for layer in layers:
                layer.mdft_statistics[adapter_name].data.copy_(layer.mdft_statistics[adapters[0]].data)
        elif layers:
            logger.warning(
                "%s: running statistics (BatchNorm) are the base's, not those of the combined weights: estimate them "
                "on images with hf_mdft.embedding.statistics.estimate_statistics",
                adapter_name,
            )

    def coefficients(self, adapter_name: str = "default") -> dict[str, torch.Tensor]:
        """Coefficients `(K,)` in use, by tensor name in the tower, detached."""
        table = {}
        for layer in self.model.modules():
            if isinstance(layer, MdftLayer) and adapter_name in layer.mdft_vectors:
                rows = layer.coefficients(adapter_name).detach()
                table.update(zip(layer.mdft_vectors[adapter_name].names.values(), rows, strict=True))
        return table


def _space(config: MdftConfig) -> tuple:
    """What two adapters must share for their coefficients to mean the same."""
    return config.pool, TRANSFORMS.build(config.transform).key(), config.granularity


def _place(name: str, tower: nn.Module) -> str:
    kind = type(tower).__name__
    return f"the '{name}' of a larger model" if name else f"a {kind} by itself"


def parameter_owners(module: nn.Module, name: str) -> list[str]:
    """Names of the top-most modules that own a parameter (or running statistics) directly: together they cover every
    parameter once.

    Deeper is not better: an `nn.MultiheadAttention` reads its projection's weight directly and must be wrapped as a
    whole. Higher is not better either: activation checkpointing breaks inside a functional call.
    """
    owns = next(module.parameters(recurse=False), None) is not None
    if isinstance(module, MdftLayer) or owns or running_statistics(module).keys() & {"running_mean"}:
        return [name]
    prefix = f"{name}." if name else ""
    return [owner for child, m in module.named_children() for owner in parameter_owners(m, prefix + child)]
