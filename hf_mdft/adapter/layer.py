"""One layer around any module that owns parameters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from transformers.modeling_layers import GradientCheckpointingLayer

from .combine import combine


if TYPE_CHECKING:
    from ..pool import TaskVectors
    from .sharded import Shard


@dataclass
class LayerVectors:
    """The task vectors of one layer for one adapter.

    Args:
        vectors: Task vectors of the pool.
        names: Parameter name within the layer -> tensor name within the tower.
        owner: The layer whose coefficients this layer uses: itself, or the first layer of its group where a
            coefficient covers several layers. (Tied parameters would come apart when weights are assigned on load.)
    """

    vectors: TaskVectors
    names: dict[str, str]
    owner: MdftLayer


class MdftLayer(nn.Module, BaseTunerLayer):
    """Runs the wrapped module with combined parameters: `p + sum_k lambda_k Phi(tau_k)` for each of its parameters.

    Works for any module (bare parameters included) because it calls the module functionally instead of rewriting
    its forward pass. `mdft_lambda[adapter]` is `(P, K)` for granularity `tensor` (P parameter tensors below the
    module, in `names` order), `(1, K)` for a coefficient that covers more. `mdft_statistics[adapter]` are the running
    statistics (BatchNorm) of the module with the adapter, one after the other: the base's at first. `held` is what
    parameters that were combined already took the place of, see `combined_once`.
    """

    adapter_layer_names = ("mdft_lambda",)
    other_param_names = ("mdft_vectors", "mdft_statistics")

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.mdft_lambda = nn.ParameterDict()
        self.mdft_vectors: dict[str, LayerVectors] = {}
        self.mdft_statistics = nn.ParameterDict()
        self.held: list[tuple[dict[str, torch.Tensor | None], str, torch.Tensor]] | None = None
        self._computed_again = [m for m in base_layer.modules() if isinstance(m, GradientCheckpointingLayer)]
        self._before: dict[str, torch.Tensor] = {}
        self._disable_adapters = False
        self._active_adapter: list[str] = []
        self.merged_adapters = []

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
            return getattr(self.base_layer, name)

    def update_layer(
        self,
        adapter_name: str,
        vectors: TaskVectors,
        names: dict[str, str],
        owner: MdftLayer | None,
        rows: int,
        start: float,
        inference_mode: bool,
    ) -> None:
        """Add an adapter; with `owner=None` the layer owns its coefficients, `rows` of them per expert."""
        self.mdft_vectors[adapter_name] = LayerVectors(vectors, names, owner or self)
        if owner is None:
            device = next(self.base_layer.parameters()).device
            coefficients = torch.full((rows, len(vectors.experts)), float(start), device=device)
            self.mdft_lambda[adapter_name] = nn.Parameter(coefficients)
        statistics = running_statistics(self.base_layer)
        if statistics:
            joined = torch.cat([buffer.flatten() for buffer in statistics.values()])
            self.mdft_statistics[adapter_name] = nn.Parameter(joined.clone(), requires_grad=False)
        self.set_adapter(self.active_adapters or [adapter_name], inference_mode=inference_mode)

    def coefficients(self, adapter_name: str) -> torch.Tensor:
        """Coefficients `(P, K)` that this layer uses, one row for each of its parameter tensors."""
        mine = self.mdft_vectors[adapter_name]
        return mine.owner.mdft_lambda[adapter_name].expand(len(mine.names), -1)

    @property
    def combines(self) -> bool:
        """Whether the forward pass uses anything but the wrapped module's own parameters."""
        return bool(self.active_adapters) and not self.disable_adapters and not self.merged

    def combined(self, adapter_names: list[str], sign: float = 1.0) -> dict[str, torch.Tensor]:
        """The wrapped module's parameters with these adapters' task vectors, by name within the module."""
        parameters = dict(self.base_layer.named_parameters())
        for adapter_name in adapter_names:
            if adapter_name not in self.mdft_vectors:
                continue
            for name, vectors, rows, row in self.sources(adapter_name, parameters):
                parameters[name] = combine(parameters[name], vectors, sign * rows[row])
        return parameters | self.statistics(adapter_names)

    def sources(
        self, adapter_name: str, parameters: dict[str, torch.Tensor], shard: Shard | None = None
    ) -> Iterator[tuple[str, torch.Tensor, nn.Parameter, int]]:
        """Of each of the wrapped module's parameters: its name within the module, its task vectors `(K, *shape)` on
        its device (a process's part of them, flat), and the coefficients with the number of its row in them."""
        mine = self.mdft_vectors[adapter_name]
        rows = mine.owner.mdft_lambda[adapter_name]
        for number, (name, tensor) in enumerate(mine.names.items()):
            place = None if shard is None else shard.part(parameters[name].numel())
            vectors = mine.vectors.stack(tensor, parameters[name].device, place)
            yield name, vectors, rows, min(number, rows.shape[0] - 1)

    def statistics(self, adapter_names: list[str]) -> dict[str, torch.Tensor]:
        """Views of the running statistics with the last of these adapters, by name within the module."""
        kept = [name for name in adapter_names if name in self.mdft_statistics]
        if not kept:
            return {}
        own = running_statistics(self.base_layer)
        parts = self.mdft_statistics[kept[-1]].data.split([buffer.numel() for buffer in own.values()])
        return {name: part.view(own[name].shape) for name, part in zip(own, parts, strict=True)}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.held is not None and not self.combines:
            raise RuntimeError("adapters cannot be switched off within combined_once")
        if not self.combines or self.held is not None:
            return self.base_layer(*args, **kwargs)
        again = any(layer.gradient_checkpointing and layer.training for layer in self._computed_again)
        if again and torch.is_grad_enabled():
            raise RuntimeError(
                f"gradient checkpointing would compute {type(self.base_layer).__name__} again without the adapter; "
                "use hf_mdft.adapter.combined_once around forward and backward pass, as MdftTrainer does"
            )
        return functional_call(self.base_layer, self.combined(self.active_adapters), args, kwargs)

    def hold(self, parameters: dict[str, torch.Tensor]) -> None:
        """Put tensors in the place of the wrapped module's parameters and running statistics, until `let_go`.

        Args:
            parameters: By name within the module.
        """
        own = dict(self.base_layer.named_parameters()) | running_statistics(self.base_layer)
        new = {id(own[name]): tensor for name, tensor in parameters.items()}  # tied ones have several names
        self.held = []
        for module in self.base_layer.modules():
            for place in (module._parameters, module._buffers):
                for name, tensor in place.items():
                    if id(tensor) in new:
                        self.held.append((place, name, tensor))
                        place[name] = new[id(tensor)]

    def let_go(self) -> None:
        """Give the wrapped module its own back."""
        for place, name, tensor in self.held or ():
            place[name] = tensor
        self.held = None

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Fold adapters into the wrapped module's parameters.

        Args:
            safe_merge: Whether to look at the result before anything is changed.
            adapter_names: Names of the adapters; the default is all active ones.

        Raises:
            ValueError: `safe_merge` found NaN or infinity; nothing was changed.
        """
        adapter_names = check_adapters_to_merge(self, adapter_names)
        folded = self.combined(adapter_names)
        if safe_merge:
            for name, tensor in folded.items():
                if not torch.isfinite(tensor).all():
                    raise ValueError(f"merging {adapter_names} gives NaN or infinity in '{name}'")
        for name, parameter in self.base_layer.named_parameters():
            parameter.data = folded[name].detach()
        if not self.merged_adapters:
            self._before = {name: buffer.clone() for name, buffer in running_statistics(self.base_layer).items()}
        for name, buffer in running_statistics(self.base_layer).items():
            buffer.copy_(folded.get(name, buffer))
        self.merged_adapters.extend(adapter_names)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the folded adapters out again (exact up to the rounding of the parameters' dtype)."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        unfolded = self.combined(self.merged_adapters, sign=-1.0)
        for name, parameter in self.base_layer.named_parameters():
            parameter.data = unfolded[name].detach()
        for name, buffer in running_statistics(self.base_layer).items():
            buffer.copy_(self._before[name])
        self.merged_adapters.clear()

    def __repr__(self) -> str:
        return "mdft." + super().__repr__()


def batch_norms(module: nn.Module) -> dict[str, nn.Module]:
    """Modules in and below a module that keep the mean and variance of what they have seen, by name."""
    return {
        name: norm
        for name, norm in module.named_modules()
        if isinstance(norm, _BatchNorm) and norm.running_mean is not None
    }


def running_statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    """Buffers of BatchNorm in and below a module, by name."""
    return {
        f"{prefix}{'.' if prefix else ''}{name}": getattr(norm, name)
        for prefix, norm in batch_norms(module).items()
        for name in ("running_mean", "running_var")
    }
