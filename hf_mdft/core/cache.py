"""The folder where prepared things are kept between runs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HOME

from .json_files import replace_text
from .sealed import sealed


ADVICE = "set HF_MDFT_CACHE"


def cache_root() -> Path:
    """`$HF_MDFT_CACHE`, or `hf_mdft` in the Hugging Face home."""
    return Path(os.path.expanduser(os.environ.get("HF_MDFT_CACHE") or Path(HF_HOME) / "hf_mdft"))


def key_of(*parts: Any) -> str:
    """Name made of everything that a prepared thing depends on (JSON-able parts)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def prepared(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """Folder `kind/key` of the cache, made by `make(folder)` the first time and where it is damaged.

    Raises:
        InputError: No space or no permission.
    """
    return sealed(cache_root() / kind / key, make, ADVICE)


def remembered(kind: str, key: str) -> Any:
    """The JSON-able value that was kept under a name; `None` where there is none, or it is damaged."""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        found = json.loads((cache_root() / kind / key).read_text(encoding="utf-8"))
        if found["check"] == key_of(kind, key, found["value"]):
            return found["value"]
    return None


def remember(kind: str, key: str, value: Any) -> None:
    """Keep a small JSON-able value under a name, where the cache can be written."""
    file = cache_root() / kind / key
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_text(file, json.dumps({"value": value, "check": key_of(kind, key, value)}))
