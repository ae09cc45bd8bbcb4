"""`hf-mdft study gate`: candidates of which many are bad, and what each label-free rule keeps of them."""

from .report import as_markdown
from .settings import SETTINGS
from .study import gate_study


__all__ = ["SETTINGS", "as_markdown", "gate_study"]
