"""What a step costs, beside its lower bound, measured in the same run."""

from .fusion_bench import load_fusion_bench
from .measure import Setting, measure, measure_apart
from .table import Cost, as_markdown


__all__ = ["Cost", "Setting", "as_markdown", "load_fusion_bench", "measure", "measure_apart"]
