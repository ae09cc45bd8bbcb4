"""Asking the Hub several things at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm.auto import tqdm


S, T = TypeVar("S"), TypeVar("T")


def each(function: Callable[[S], T], items: Iterable[S], desc: str | None = None) -> list[T]:
    """Results for all items, in order: each waits for the Hub, not for the processor.

    Args:
        desc: Title of a progress bar; none is shown without it.
    """
    items = list(items)
    with ThreadPoolExecutor(max_workers=8) as threads:
        return list(tqdm(threads.map(function, items), total=len(items), desc=desc, disable=desc is None, leave=False))
