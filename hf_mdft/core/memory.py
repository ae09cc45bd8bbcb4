"""How much memory this process has held."""

from __future__ import annotations

import sys


def peak_memory_bytes() -> int | None:
    """The most memory that this process has held so far, file-backed pages included; `None` where the system keeps no
    such figure (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, kilobytes elsewhere
