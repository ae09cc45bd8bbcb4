"""Keeping the memory that a training step frees, for the next step."""

from __future__ import annotations

import ctypes
import sys


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 << 20
NEVER = -1


def keep_freed_memory() -> None:
    """Make glibc's allocator keep freed memory instead of giving it back to the system.

    On a processor every step frees gigabytes of activations and weights and needs them again at once. By default they
    go back to the system, which hands them out anew, page by page and zeroed: a quarter of a step. It is a setting
    of the whole process, so only the command line makes it; where there is another allocator it does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, NEVER)
