"""What every head provides."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ..core.cache import key_of
from ..core.class_names import positions
from ..core.errors import InputError
from ..core.registry import Registry
from ..core.regular import check_whole


def check_finite(head: Head, where: str) -> Head:
    """The head, which every class can be computed with.

    Args:
        head: The head.
        where: Names it in messages.

    Raises:
        InputError: A tensor of it holds NaN or infinity.
    """
    for key, tensor in head.state_dict().items():
        if not tensor.isfinite().all():
            raise InputError(f"{where}: '{key}' holds NaN or infinity; give another head")
    return head


class Head(nn.Module):
    """Maps image embeddings `(batch, width)` of the tower to logits `(batch, C)` of classes with names.

    Heads stay with their tasks: only towers are combined. They are frozen; `trainable()` gives a copy to train. What
    uses a head needs its logits and class names alone.

    Args:
        class_names: C names, in the order of the logits.
        tensors: Tensors of the head, by name in `tensor_names`.

    Raises:
        InputError: Another number of class names than of classes, or tensors that do not fit together.
    """

    name: str
    tensor_names: tuple[str, ...]
    trained_names: tuple[str, ...]
    """Tensors that a trainable copy trains."""
    class_tensors: tuple[str, ...] = ()
    """Tensors with one row for each class."""
    number_tensors: tuple[str, ...] = ()
    """Tensors of a single number."""

    def __init__(self, class_names: list[str], **tensors: torch.Tensor) -> None:
        super().__init__()
        self.class_names = list(class_names)
        for name in self.tensor_names:
            self.register_parameter(name, nn.Parameter(tensors[name].detach().float().clone(), requires_grad=False))
        shapes = {name: tuple(tensors[name].shape) for name in self.tensor_names}
        counts = {(shapes[name] or (0,))[0] for name in self.class_tensors}
        if len(counts) > 1 or any(math.prod(shapes[name]) != 1 for name in self.number_tensors):
            said = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise InputError(f"{self.name} head: tensors that do not fit together ({said})")
        if len(self.class_names) != self.num_classes:
            raise InputError(f"{self.name} head: {len(self.class_names)} class names for {self.num_classes} classes")

    @property
    def num_classes(self) -> int:
        return getattr(self, self.tensor_names[0]).shape[0]

    @property
    def width(self) -> int | None:
        """Numbers of an image embedding that it reads; `None` where a kind of head does not say."""
        return None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def linear(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Weight `(C, width)` and bias `(C,)` where the head is an affine map of the embedding; else none."""
        return None

    def named(self, class_names: list[str], where: str) -> Head:
        """The head with these classes: where it has the same, in their order; else its own are renamed, in order.

        Args:
            class_names: Names of all classes.
            where: Names the head in messages.

        Raises:
            InputError: Their number is another, or some are its own at other positions, and not all.
        """
        if class_names == self.class_names:
            return self
        if len(class_names) != self.num_classes:
            raise InputError(f"{where}: {len(class_names)} class_names, but the head has {self.num_classes} classes")
        rows = positions(class_names, self.class_names, f"{where}: class_names", "the head")
        return self.with_classes(rows, class_names)

    def ordered(self, class_names: list[str], where: str) -> Head:
        """The head with the same classes in this order.

        Args:
            class_names: Names of all classes.
            where: Names the head in messages.

        Raises:
            InputError: It has others.
        """
        if sorted(class_names) != sorted(self.class_names):
            raise InputError(f"{where} has other class_names: {', '.join(self.class_names[:5])}")
        return self.named(class_names, where)

    def with_classes(self, rows: Sequence[int], class_names: list[str]) -> Head:
        """The same head with some of its classes, in another order or with other names.

        Args:
            rows: Which of its classes, in order.
            class_names: Their names.

        Raises:
            InputError: A kind of head that does not say which tensors have a row for each class.
        """
        if not self.class_tensors and list(rows) != list(range(self.num_classes)):
            raise InputError(f"a {self.name} head cannot be put into another order; give class_names in its own")
        tensors = dict(self.state_dict())
        tensors |= {name: tensors[name][list(rows)] for name in self.class_tensors}
        return type(self)(class_names, **tensors)

    def trainable(self, full: bool = True) -> Head:
        """A copy to train.

        Args:
            full: Train everything in `trained_names`; else only what is the task's own (see the kinds of heads).
        """
        head = copy.deepcopy(self)
        for name in self.trained_names:
            getattr(head, name).requires_grad_(True)
        return head

    def key(self) -> str:
        """A digest of kind, class names and tensors."""
        tensors = {name: value.cpu().numpy().tobytes() for name, value in self.state_dict().items()}
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in tensors.items()}
        return key_of(self.name, self.class_names, digests)

    def save(self, path: str | Path) -> None:
        """Write the head to one safetensors file: tensors, kind and class names. Equal heads are equal files."""
        metadata = {"head": self.name, "class_names": json.dumps(self.class_names)}
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        Path(path).write_bytes(_in_order(save(tensors, metadata)))


def _in_order(file: bytes) -> bytes:
    """A safetensors file with its metadata, which the library writes in random order, sorted by key."""
    size = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    ordered += b" " * (-len(ordered) % 8)  # tensors begin at multiples of 8 bytes
    return len(ordered).to_bytes(8, "little") + ordered + file[8 + size :]


HEADS: Registry[type[Head]] = Registry("head")


def load_head(path: str | Path, class_names: list[str] | None = None) -> Head:
    """Read a head from safetensors: one that `Head.save` wrote, or `weight` and `bias` of a linear classifier, whose
    classes are numbered (`class 0`, ...).

    Args:
        path: The file.
        class_names: See `Head.named`; the default are the file's.

    Raises:
        InputError: The file cannot be read, lacks a tensor, or has another number of classes.
    """
    check_whole(Path(path))
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        known = json.loads(metadata.get("class_names", "null"))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: no readable head in safetensors ({str(error)[:200]})") from error
    try:
        kind = HEADS.get(metadata.get("head", "linear"))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    missing = [name for name in kind.tensor_names if name not in tensors]
    if missing:
        raise InputError(f"{path}: a {kind.name} head needs tensor '{missing[0]}', the file has {', '.join(tensors)}")
    for name in kind.tensor_names:
        if not tensors[name].is_floating_point() or tensors[name].element_size() < 2:
            raise InputError(f"{path}: tensor '{name}' is stored as {tensors[name].dtype}; save it in fp32")
        if not tensors[name].isfinite().all():
            raise InputError(f"{path}: tensor '{name}' holds NaN or infinity; make the head again")
    if not tensors[kind.tensor_names[0]].ndim:
        raise InputError(f"{path}: tensor '{kind.tensor_names[0]}' is a single number, no head")
    if known is not None and not (isinstance(known, list) and all(isinstance(name, str) for name in known)):
        raise InputError(f"{path}: its class_names are no list of names; make the head again")
    if known is None and class_names is not None:
        known = class_names  # in its order, of which the file says nothing
    names = known or [f"class {i}" for i in range(tensors[kind.tensor_names[0]].shape[0])]
    try:
        head = kind(names, **{name: tensors[name] for name in kind.tensor_names})
        fits = head.width is None or head(torch.zeros(2, head.width)).shape == (2, head.num_classes)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (IndexError, RuntimeError):
        fits = False
    if not fits:
        said = ", ".join(f"{name} {tuple(tensors[name].shape)}" for name in kind.tensor_names)
        raise InputError(f"{path}: tensors that do not fit together in a {kind.name} head ({said}); make it again")
    return head if class_names is None else head.named(class_names, str(path))
