"""What a step costs, beside the least that it could cost, measured in the same run."""

from .measure import MEASURES, Cost, Setting, as_markdown, measure, measure_apart
from .peer import find_peer


__all__ = ["MEASURES", "Cost", "Setting", "as_markdown", "find_peer", "measure", "measure_apart"]
