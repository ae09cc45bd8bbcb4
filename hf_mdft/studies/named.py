"""Names of recipes in tables of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import InputError


def by_name(recipes: Sequence[Path]) -> dict[str, Path]:
    """Recipes by name: that of the file, or of its folder where the file has the usual name.

    Raises:
        InputError: Two have the same name.
    """
    found: dict[str, Path] = {}
    for path in recipes:
        name = path.resolve().parent.name if path.stem == "recipe" else path.stem
        if name in found:
            raise InputError(f"{path}: {found[name]} is called '{name}' too; rename one of the files")
        found[name] = path
    return found
