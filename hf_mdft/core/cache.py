"""The folder where prepared things are kept between runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HOME
from safetensors import SafetensorError

from .errors import InputError


def cache_root() -> Path:
    """`$HF_MDFT_CACHE`, or `hf_mdft` in the Hugging Face home."""
    return Path(os.environ.get("HF_MDFT_CACHE", Path(HF_HOME) / "hf_mdft")).expanduser()


def key_of(*parts: Any) -> str:
    """Name made of everything that a prepared thing depends on (JSON-able parts)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def discard(folder: Path) -> None:
    """Take a prepared folder away, whatever other processes do with it at the same time.

    Raises:
        InputError: No permission.
    """
    try:
        work = Path(tempfile.mkdtemp(prefix=".discarded-", dir=folder.parent))
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, work / folder.name)
    except OSError as error:
        raise InputError(f"{folder}: damaged, and cannot be removed ({error}); set HF_MDFT_CACHE") from error
    shutil.rmtree(work, ignore_errors=True)


def prepared(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """Folder `kind/key` of the cache, made by `make(folder)` the first time.

    It appears whole or not at all: `make` writes beside it and the finished folder is moved into place, so that an
    interrupted run leaves nothing half-written and two processes may prepare the same thing.

    Raises:
        InputError: No space or no permission.
    """
    target = cache_root() / kind / key
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{key[:8]}-", dir=target.parent))
    except OSError as error:
        raise InputError(f"{target.parent}: cannot write the cache ({error.strerror}); set HF_MDFT_CACHE") from error
    try:
        make(work)
        os.rename(work, target)
    except (OSError, SafetensorError) as error:
        if not target.is_dir():
            raise InputError(f"{target}: cannot write the cache ({error}); free space or set HF_MDFT_CACHE") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target
