"""How deep each parameter of a tower lies, from its modules rather than their names."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def depths(tower: nn.Module, shape: tuple[int, int, int] | None = None) -> dict[str, int]:
    """Depth of every parameter: 0 before the first block, i (from 1) in block i, -1 behind the last block.

    What is used between two blocks, such as a stage's downsampling, belongs to the block that follows.

    Args:
        tower: Any model with a list of blocks, or of stages that hold one each; the meta device will do.
        shape: Shape `(3, height, width)` of an image that it reads, with which a tower on the meta device is run to
            see in which order its modules are used. Without it, and for modules that are never called, this is the
            order in which they are registered.
    """
    numbers = {id(block): number for number, block in enumerate(blocks(tower), start=1)}
    last = len(numbers)
    used = {} if shape is None else _blocks_before(tower, shape, numbers)
    found: dict[str, int] = {}
    seen = 0

    def walk(module: nn.Module, prefix: str, inside: int | None) -> None:
        nonlocal seen
        before = used.get(id(module), seen)
        between = before + 1 if 0 < before < last else -1 if before else 0
        for name, _ in module.named_parameters(recurse=False):
            found[prefix + name] = between if inside is None else inside
        for name, child in module.named_children():
            number = numbers.get(id(child), inside)
            walk(child, f"{prefix}{name}.", number)
            seen = number or seen

    walk(tower, "", None)
    return {name: found[name] for name, _ in tower.named_parameters()}


@torch.no_grad()
def _blocks_before(tower: nn.Module, shape: tuple[int, int, int], numbers: dict[int, int]) -> dict[int, int]:
    """How many blocks have been used before each module that is called; empty where the meta device cannot tell."""
    before: dict[int, int] = {}
    count = 0

    def note(module: nn.Module, *_: Any) -> None:
        nonlocal count
        count = max(count, numbers.get(id(module), 0))
        before.setdefault(id(module), count)

    if any(not parameter.is_meta for parameter in tower.parameters()):
        return {}
    hooks = [module.register_forward_pre_hook(note) for module in tower.modules() if module is not tower]
    training = tower.training
    try:
        tower.eval()(pixel_values=torch.zeros(1, *shape, device="meta"))
    except Exception:  # whatever a model does that needs numbers
        return {}
    finally:
        tower.train(training)
        for hook in hooks:
            hook.remove()
    return before


def blocks(tower: nn.Module) -> list[nn.Module]:
    """The tower's blocks in order of use, through all stages.

    They are the elements of the list that holds most of the tower's parameters, and of lists beside it with elements
    of the same kind (stages that are no list themselves). Elements that differ from each other (or a single one) are
    stages where each holds such a list itself; blocks of one stage may differ, and lists inside a block are its own
    business.
    """
    lists = _lists(tower)
    elements = max(lists, key=_sizes, default=[])
    kinds = {type(element) for element in elements}
    if not any(map(_is_list, elements)):
        elements = [element for found in lists if {type(m) for m in found} <= kinds for element in found]
    inner = [max(_lists(element), key=_sizes, default=[]) for element in elements]
    if all(inner) and (len(elements) == 1 or not _alike(elements)):
        return [block for stage in inner for block in stage]
    return elements


def _lists(module: nn.Module) -> list[list[nn.Module]]:
    """Composite elements of each outermost list that has any; plain layers do not count."""
    return [composite for found in _outermost_lists(module) if (composite := [m for m in found if _is_composite(m)])]


def _sizes(elements: list[nn.Module]) -> int:
    return sum(map(_size, elements))


def _outermost_lists(module: nn.Module) -> list[nn.Module]:
    if _is_list(module):
        return [module]
    return [found for child in module.children() for found in _outermost_lists(child)]


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList | nn.Sequential)


def _is_composite(module: nn.Module) -> bool:
    return any(_size(child) for child in module.children())


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _alike(modules: list[nn.Module]) -> bool:
    shapes = [[(name, parameter.shape) for name, parameter in module.named_parameters()] for module in modules]
    return all(other == shapes[0] for other in shapes)
