"""How long the stages of a run took."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState

from .errors import InputError
from .json_files import read_json, write_json
from .typed import read


SECONDS = "seconds.json"
"""File of a folder of work in progress that keeps the seconds that the work took."""

LATER_META = "meta-models of later rounds"
"""Name of the stage that makes the meta-models of all rounds of phase 2 but the first."""


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

    @contextmanager
    def of_work(self, stage: str, folder: Path) -> Iterator[None]:
        """What is done within, as the seconds of a stage, with those of earlier starts that worked on the same; where
        one of them was done, its seconds alone, for then this start only reads what was made.

        Args:
            stage: Name of the stage.
            folder: Folder of its work in progress, which keeps the seconds. Those of a start that is killed are lost.
        """
        start, done = time.perf_counter(), False
        try:
            yield
            done = True
        finally:
            self[stage] = _with_earlier(folder, time.perf_counter() - start, done)


@dataclass(frozen=True)
class _Kept:
    """Seconds that work took so far.

    Args:
        seconds: Seconds of all starts.
        done: Whether it was done.
    """

    seconds: float
    done: bool


def forget_finished(folder: Path) -> None:
    """Before work is done anew that an earlier start had finished: the seconds of that one no longer count."""
    if (kept := _kept(folder)) is not None and kept.done:
        (folder / SECONDS).unlink(missing_ok=True)


def _with_earlier(folder: Path, seconds: float, done: bool) -> float:
    if (kept := _kept(folder)) is not None:
        if kept.done:
            return kept.seconds
        seconds += kept.seconds
    if PartialState().is_main_process:
        with suppress(OSError):  # no result is lost for its seconds
            write_json(folder / SECONDS, _Kept(seconds, done))
    return seconds


def _kept(folder: Path) -> _Kept | None:
    file = folder / SECONDS
    with suppress(InputError, OSError):
        return read(_Kept, read_json(file, str(folder)), str(file))
    return None
