"""Task vectors of a pool: stacked per tensor, transformed once, kept compactly in memory-mapped files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..core.cache import discard, prepared
from ..core.errors import InputError


logger = logging.getLogger(__name__)


STORED = torch.float16
"""Half of fp32's bytes. Task vectors are small numbers of one scale, for which half precision keeps three bits more
than bfloat16: an expert comes back with at most 1/2048 of its task vector rounded away, or 3e-8 where that is more."""


ATTEMPTS = 3
"""Attempts at opening: another process may be repairing the files too."""

FORMAT = 3
"""Version of the files that `write_vectors` makes; raised with every change to what they hold."""


class DamagedVectors(Exception):
    """A file of the cache is not what was written."""


class TaskVectors:
    """`tau_k = theta_k - theta_0` of all experts, one `(K, *shape)` tensor in half precision for each tensor of the
    tower.

    The tensors are views of files: they cost page cache, which processes share, not memory of the process, and
    copies of a model share them. Nothing writes to them.

    Args:
        folder: Files written by `write_vectors`.
        experts: Names of the K experts, in row order.
        names: Names of the tensors that must be there.

    Raises:
        DamagedVectors: A file cannot be read or fails its checksum, or a tensor is missing.
    """

    def __init__(self, folder: Path, experts: list[str], names: set[str]) -> None:
        self.experts = experts
        self._stacks: dict[str, torch.Tensor] = {}
        for path in sorted(folder.glob("*.safetensors")):
            try:
                self._stacks.update(_read_checked(path))
            except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
                raise DamagedVectors(f"{path}: {error!r}") from error
        if set(self._stacks) != names:
            raise DamagedVectors(f"{folder}: {len(self._stacks)} tensors instead of {len(names)}")
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


def open_vectors(key: str, make: Callable[[Path], None], experts: list[str], names: set[str]) -> TaskVectors:
    """Task vectors from the cache, prepared by `make(folder)` where they are missing or damaged.

    Args:
        key: Digest of everything that they depend on.
        make: Writes them into a folder, with `write_vectors`.
        experts: Names of the K experts, in row order.
        names: Names of the tensors that must be there.

    Raises:
        InputError: They cannot be written, or are damaged each time.
    """
    for _ in range(ATTEMPTS):
        folder = prepared("vectors", key, make)
        try:
            return TaskVectors(folder, experts, names)
        except DamagedVectors as error:
            logger.warning("%s; preparing the task vectors anew", error)
            discard(folder)
    raise InputError(f"{folder}: damaged each time it is written; check the disk, or set HF_MDFT_CACHE")


def _read_checked(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        checksums = json.loads(file.metadata()["checksums"])
        stacks = {name: file.get_tensor(name) for name in file.keys()}
    for name, stack in stacks.items():
        if checksum(stack) != checksums[name]:
            raise ValueError(f"tensor '{name}' fails its checksum")
    return stacks


def write_vectors(stream: Iterator[tuple[str, torch.Tensor]], folder: Path, shard_bytes: int = 256 << 20) -> None:
    """Write task vectors to safetensors files, no more than one of which is ever in memory.

    Args:
        stream: Name and task vectors `(K, *shape)` of one tensor after the other.
        folder: Folder of the files.
        shard_bytes: Size at which a file is closed.

    Raises:
        InputError: A task vector is too large for half precision.
    """
    shard, size, count = {}, 0, 0

    def write() -> None:
        checksums = json.dumps({name: checksum(stack) for name, stack in shard.items()})
        save_file(shard, folder / f"vectors-{count:05d}.safetensors", {"checksums": checksums})

    for name, stack in stream:
        stored = stack.to(STORED).contiguous()
        if not torch.isfinite(stored).all():
            largest = stack.abs().max().item()
            raise InputError(f"task vectors of '{name}' reach {largest:.3g}, above 65504: not an expert of this base")
        shard[name] = stored
        size += stored.nbytes
        if size >= shard_bytes:
            write()
            shard, size, count = {}, 0, count + 1
    if shard:
        write()


def checksum(stack: torch.Tensor) -> int:
    """Exclusive or of all 8-byte words: finds damage (not malice) as fast as memory can be read."""
    data = stack.contiguous().numpy().reshape(-1).view(np.uint8)
    whole = len(data) // 8 * 8
    words = np.bitwise_xor.reduce(data[:whole].view(np.uint64), initial=np.uint64(0))
    return int(words) ^ int.from_bytes(data[whole:].tobytes(), "little")
