"""A measurement in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from ..core.errors import InputError


T = TypeVar("T")


def apart(prepare: Callable[[], None], what: str, function: Callable[..., T], *args: Any) -> T:
    """What a function gives, run in a new process.

    Args:
        prepare: Function that sets that process up; called first.
        what: Names the measurement in messages.
        function, args: Function of a module, and what it is given.

    Raises:
        InputError: The process was killed.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (prepare,)) as process:
        try:
            return process.submit(function, *args).result()
        except BrokenProcessPool as error:
            raise InputError(f"measuring '{what}' was killed: too little memory? Try a smaller batch") from error


def _begin(prepare: Callable[[], None]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare()


def _end_with_parent() -> None:
    """A measurement that nobody waits for any more ends: the process that asked for it may be killed."""
    multiprocessing.parent_process().join()
    os._exit(1)
