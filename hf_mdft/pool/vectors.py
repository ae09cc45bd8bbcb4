"""Task vectors of a pool: stacked per tensor, transformed once, kept compactly in memory-mapped files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from ..core.errors import InputError
from ..transforms import Transform, transformed


STORED = torch.float16
"""Half of fp32's bytes. Task vectors are small numbers of one scale, for which half precision keeps three bits more
than bfloat16: an expert comes back with at most 1/2048 of its task vector rounded away, or 3e-8 where that is more."""

FORMAT = 4
"""Version of the files that `write_vectors` makes; raised with every change to what they hold."""


class TaskVectors:
    """`tau_k = theta_k - theta_0` of all experts, one `(K, *shape)` tensor in half precision for each tensor of the
    tower.

    The tensors are views of files: they cost page cache, which processes share, not memory of the process, and
    copies of a model share them. Nothing writes to them.

    Args:
        folder: Files written by `write_vectors`.
        experts: Names of the K experts, in row order.
    """

    def __init__(self, folder: Path, experts: list[str]) -> None:
        self.experts = experts
        self._stacks: dict[str, torch.Tensor] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                self._stacks |= {name: file.get_tensor(name) for name in file.keys()}
        self._elsewhere: dict[tuple[str, torch.device, tuple[int, int] | None], torch.Tensor] = {}

    def __deepcopy__(self, memo: dict) -> TaskVectors:
        return self

    def names(self) -> list[str]:
        return list(self._stacks)

    def stack(self, name: str, device: torch.device | str = "cpu", part: slice | None = None) -> torch.Tensor:
        """Task vectors `(K, *shape)` of one tensor, copied to another device once.

        Args:
            name: Name of the tensor.
            device: Where they are wanted.
            part: Which of each vector's numbers, flat: `(K, count)`; the default is all, in their shape.
        """
        device, place = torch.device(device), None if part is None else (part.start, part.stop)
        found = self._stacks[name] if part is None else self._stacks[name].reshape(len(self.experts), -1)[:, part]
        if device.type == "cpu":
            return found
        if (name, device, place) not in self._elsewhere:
            self._elsewhere[name, device, place] = found.to(device)
        return self._elsewhere[name, device, place]

    def release(self) -> None:
        """Forget the copies on other devices."""
        self._elsewhere.clear()


def write_transformed(
    phi: Transform,
    tensors: Callable[[], Iterator[tuple[str, torch.Tensor]]],
    depths: dict[str, float],
    folder: Path,
    experts: Sequence[str],
) -> None:
    """Write Phi of task vectors, one tensor after the other, with a progress bar of the main process.

    Args:
        phi: The transform.
        tensors: Gives name and task vectors `(K, *shape)` of one tensor after the other, each time from the start.
        depths: How deep each of the tensors lies; see `Transform.fit`.
        folder: Folder of the files.
        experts: Names of the experts, in row order, for messages.

    Raises:
        InputError: See `transformed` and `write_vectors`.
    """
    phi.fit(tensors, depths)
    hidden = not PartialState().is_main_process
    with tqdm(tensors(), f"Task vectors ({phi.name})", len(depths), leave=False, disable=hidden) as bar:
        write_vectors((transformed(phi, name, stack) for name, stack in bar), folder, experts)


def write_vectors(
    stream: Iterator[tuple[str, torch.Tensor]], folder: Path, experts: Sequence[str], shard_bytes: int = 256 << 20
) -> None:
    """Write task vectors to safetensors files, no more than one of which is ever in memory.

    Args:
        stream: Name and task vectors `(K, *shape)` of one tensor after the other.
        folder: Folder of the files.
        experts: Names of the experts, in row order, for messages.
        shard_bytes: Size at which a file is closed.

    Raises:
        InputError: A task vector is too large for half precision.
    """
    shard, size, count = {}, 0, 0

    def write() -> None:
        save_file(shard, folder / f"vectors-{count:05d}.safetensors")

    for name, stack in stream:
        stored = stack.to(STORED).contiguous()
        if not torch.isfinite(stored).all():
            largest = stack.abs().flatten(1).amax(dim=1)
            expert = experts[int(largest.argmax())]
            raise InputError(
                f"expert '{expert}': its '{name}' is {largest.max().item():.3g} away from the base's, above 65504: "
                "not an expert of this base"
            )
        shard[name] = stored
        size += stored.nbytes
        if size >= shard_bytes:
            write()
            shard, size, count = {}, 0, count + 1
    if shard:
        write()
