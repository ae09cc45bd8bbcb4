"""Which parts of a config change what a model computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def functional_config(folder: Path) -> dict[str, Any]:
    return {}
