"""Published methods as fragments of a recipe, made of this package's own parts: one YAML file each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import InputError, suggest
from ..core.typed import read


FOLDER = Path(__file__).with_name("presets")
SHARED = FOLDER / "shared"
PARTS = ("adapter", "meta", "specialize")

TRAINING_FREE = ("stata", "transclip")
"""Baselines that are no presets: the package's `TRANSDUCTIVE`, by name, for `--help`, which loads nothing heavy."""


@dataclass(frozen=True)
class Preset:
    """A published method.

    Args:
        about: What it does, in one line.
        paper: Address of its paper.
        adapter, meta, specialize: Options of a recipe's parts of these names. A preset of phase 1 makes no specialists
            (`specialize: {rounds: 0}`); one of phase 2 makes them, and may leave `adapter` and `meta` to the recipe.
    """

    about: str
    paper: str
    adapter: dict[str, Any] | None = None
    meta: dict[str, Any] | None = None
    specialize: dict[str, Any] | None = None

    @property
    def makes_specialists(self) -> bool:
        return (self.specialize or {}).get("rounds", 0) > 0

    @property
    def makes_meta_model(self) -> bool:
        """Whether it has a meta-model of its own."""
        return self.adapter is not None or self.meta is not None


def names() -> list[str]:
    """All presets."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def preset(name: str) -> Preset:
    """The preset called `name`.

    Its file may name a file of `presets/shared` under `extends`: options that several methods have in common, which
    its own are put over.

    Raises:
        InputError: No such preset; the nearest name is suggested.
    """
    if name not in names():
        if name in TRAINING_FREE:
            raise InputError(f"'{name}' trains nothing, so it is no preset; compare with it: --baseline {name}")
        raise InputError(f"unknown preset '{name}': {suggest(name, names())}")
    file = FOLDER / f"{name}.yaml"
    content = _content(file)
    if "extends" in content:
        shared = _content(SHARED / f"{content.pop('extends')}.yaml")
        parts = {part: {**shared.get(part, {}), **content.get(part, {})} for part in PARTS}
        content |= {part: options for part, options in parts.items() if options}
    return read(Preset, content, str(file))


def _content(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))
