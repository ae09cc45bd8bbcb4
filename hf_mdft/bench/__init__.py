"""What a step costs beside its lower bound, a whole run by stage, and how costs grow."""

from .fusion_bench import load_fusion_bench
from .growth import measure_growth
from .measure import measure, measure_apart
from .setting import Setting
from .table import Cost, as_markdown, growth_as_markdown, run_as_markdown


__all__ = [
    "Cost",
    "Setting",
    "as_markdown",
    "growth_as_markdown",
    "load_fusion_bench",
    "measure",
    "measure_apart",
    "measure_growth",
    "run_as_markdown",
]
