"""`hf-mdft study teacher`: what each choice in the teacher is worth, before any training."""

from .choices import CHOICES
from .report import as_markdown
from .study import teacher_study


__all__ = ["CHOICES", "as_markdown", "teacher_study"]
