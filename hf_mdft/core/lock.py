"""One run in one folder."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState
from filelock import FileLock, Timeout

from .errors import InputError
from .json_files import replace_text


logger = logging.getLogger(__name__)

LOCK, OWNER = ".mdft.lock", ".mdft-owner.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; the operating system ends the lock with the process, however that ends.

    Of several processes of one run, the first one holds the lock.

    Args:
        folder: The folder; made if need be.

    Raises:
        InputError: Another run works there, or the folder cannot be written.
    """
    if not PartialState().is_main_process:
        yield
        return
    owner = folder / OWNER
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{folder}: another run works here ({_owner(owner)}); wait until it ends, or choose another output folder"
        ) from None
    except NotImplementedError:
        logger.warning("%s: its file system knows no locks; do not start a second run there", folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot write ({error.strerror}); choose another output folder") from error
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    with contextlib.suppress(OSError):
        replace_text(owner, json.dumps({"process": os.getpid(), "host": platform.node(), "since": since}))
    try:
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _owner(file: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(file.read_text(encoding="utf-8"))
        return f"process {found['process']} on {found['host']}, since {found['since']}"
    return "an unknown process"
