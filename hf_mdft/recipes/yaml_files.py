"""YAML of strangers: bounded in size, depth and what its aliases expand to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import InputError
from ..core.regular import SMALL, check_regular


NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
MERGE = "tag:yaml.org,2002:merge"
PLAIN = re.compile(r"[-+]?(0|[1-9]\d*)?(\.\d*)?([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
"""Numbers as people read them: YAML 1.1 takes 010 for 8, 1:30 for 90 and 1_0 for 10."""

LARGEST = 1_000_000
"""Values that a file may hold once its aliases are expanded."""


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; nothing in it makes objects.

    Raises:
        InputError: It cannot be read, is no YAML, nested too deeply, or refers to itself.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file; give a recipe")
    check_regular(path, largest=SMALL)
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _size(node, {}) > LARGEST:
            raise InputError(f"{path}: its aliases expand to more than {LARGEST:,} values; write it without them")
        return yaml.safe_load(text)
    except InputError as error:
        raise InputError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(f"{path}: cannot read the recipe ({reason})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or next(iter(str(error).splitlines()), "")
        raise InputError(f"{path}{line}: no valid YAML ({problem[:200]})") from error
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply for a recipe") from error
    except (ValueError, KeyError, TypeError, OverflowError, AttributeError) as error:  # values that no type can hold
        raise InputError(f"{path}: a value cannot be read ({str(error)[:100]}); put text in quotes") from error


def _value(node: yaml.ScalarNode) -> Any:
    return yaml.SafeLoader("").construct_object(node)


def _check_keys(node: yaml.MappingNode) -> None:
    """Raises:
    InputError: A key is there twice, of which YAML takes the last.
    """
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
            value = _value(key)
            if value in seen:
                raise InputError(f"line {key.start_mark.line + 1}: '{key.value}' is there twice; keep one of them")
            seen.add(value)


def _size(node: yaml.Node, sizes: dict[int, int | None]) -> int:
    """Values of a node with its aliases expanded.

    Raises:
        InputError: It holds itself.
    """
    known = sizes.get(id(node), 0)
    if known is None:
        mark = node.start_mark
        raise InputError(f"line {mark.line + 1}: refers to itself; a recipe cannot")
    if known:
        return known
    sizes[id(node)] = None
    total = 1
    if node.tag in NUMBERS and not PLAIN.fullmatch(node.value):
        raise InputError(
            f"line {node.start_mark.line + 1}: {node.value} is the number {_value(node)} in YAML: write that, or text "
            "in quotes"
        )
    if isinstance(node, yaml.SequenceNode):
        total += sum(_size(item, sizes) for item in node.value)
    elif isinstance(node, yaml.MappingNode):
        _check_keys(node)
        total += sum(_size(key, sizes) + _size(item, sizes) for key, item in node.value)
    sizes[id(node)] = total
    return total
