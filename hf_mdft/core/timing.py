"""How long the stages of a run took."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Timing(dict[str, float]):
    """Seconds by stage; a stage that is gone through again adds to its own."""

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self[stage] = self.get(stage, 0.0) + seconds

    def drop(self, stages: Iterable[str]) -> None:
        """Forget stages, where there are such."""
        for stage in stages:
            self.pop(stage, None)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Add what is done within to a stage."""
        start = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - start)
