"""Images under a shift: experts, baselines, meta-model and specialists, on shifted and on clean test images."""

from .figure import shift_figure
from .result import ShiftStudy
from .study import DEFAULT_SEVERITIES, DEFAULT_SHIFTS, shift_study
from .table import as_tables


__all__ = ["DEFAULT_SEVERITIES", "DEFAULT_SHIFTS", "ShiftStudy", "as_tables", "shift_figure", "shift_study"]
