"""Task vectors of a pool: stacked per tensor, transformed once, kept in memory-mapped files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


class TaskVectors:
    """`tau_k = theta_k - theta_0` of all experts, one `(K, *shape)` tensor for each tensor of the tower.

    The tensors are views of files: they cost page cache, not memory of the process, and copies of a model share
    them. Nothing writes to them.

    Args:
        folder: Files written by `write_vectors`.
        experts: Names of the K experts, in row order.
    """

    def __init__(self, folder: Path, experts: list[str]) -> None:
        self.experts = experts
        self._stacks: dict[str, torch.Tensor] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():
                    self._stacks[name] = file.get_tensor(name)
        self._elsewhere: dict[tuple[str, torch.device], torch.Tensor] = {}

    def __deepcopy__(self, memo: dict) -> TaskVectors:
        return self

    def names(self) -> list[str]:
        return list(self._stacks)

    def stack(self, name: str, device: torch.device | str = "cpu") -> torch.Tensor:
        """Task vectors `(K, *shape)` of one tensor, copied to another device once."""
        device = torch.device(device)
        if device.type == "cpu":
            return self._stacks[name]
        if (name, device) not in self._elsewhere:
            self._elsewhere[name, device] = self._stacks[name].to(device)
        return self._elsewhere[name, device]

    def release(self) -> None:
        """Forget the copies on other devices."""
        self._elsewhere.clear()


def write_vectors(stream: Iterator[tuple[str, torch.Tensor]], folder: Path, shard_bytes: int = 256 << 20) -> None:
    """Write a stream of `(name, (K, *shape))` to safetensors files of about `shard_bytes`, so that no more than one
    of them is ever in memory."""
    shard, size, count = {}, 0, 0
    for name, stack in stream:
        shard[name] = stack.contiguous()
        size += stack.nbytes
        if size >= shard_bytes:
            save_file(shard, folder / f"vectors-{count:05d}.safetensors")
            shard, size, count = {}, 0, count + 1
    if shard:
        save_file(shard, folder / f"vectors-{count:05d}.safetensors")
