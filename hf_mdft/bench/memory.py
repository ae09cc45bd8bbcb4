"""How much memory a process holds for itself."""

from __future__ import annotations

import threading
from pathlib import Path

import torch


STATUS = Path("/proc/self/status")


def anonymous_bytes() -> int | None:
    """Memory of this process that no file backs; `None` where the system keeps no such figure (Linux does)."""
    if not STATUS.is_file():
        return None
    for line in STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return None


class PeakMemory:
    """The most memory held between `start()` and `stop()`: of the accelerator where there is one, else anonymous
    memory, sampled twenty times a second."""

    def __init__(self) -> None:
        self.peak: int | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> PeakMemory:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            self._thread.start()
        return self

    def stop(self) -> int | None:
        """Bytes, or `None` where they cannot be known. Further calls give the same."""
        if torch.cuda.is_available():
            self.peak = self.peak or torch.cuda.max_memory_allocated()
        elif not self._stopped.is_set():
            self._stopped.set()
            self._thread.join()
        return self.peak

    def _watch(self) -> None:
        while True:
            held = anonymous_bytes()
            if held is None:
                return
            self.peak = max(self.peak or 0, held)
            if self._stopped.wait(0.05):
                return
