"""What a step costs, beside the least that it could cost, measured in the same run."""

from .fusion_bench import find_peer
from .measure import Setting, measure, measure_apart
from .table import Cost, as_markdown


__all__ = ["Cost", "Setting", "as_markdown", "find_peer", "measure", "measure_apart"]
