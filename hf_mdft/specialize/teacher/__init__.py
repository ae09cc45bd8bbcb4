"""The teacher: soft targets for a task's images, made by parts that are named in `SpecializeArguments.teacher`.

A new part is one file, one registration, and its name in that list.
"""

from . import class_prior, ensemble, lda
from .base import TEACHER_PARTS, TeacherPart, TeacherState
from .observation import Source, observe
from .sources import SOURCES, Models, SourceKind, observe_sources
from .targets import Teacher, build_teacher


__all__ = [
    "SOURCES",
    "TEACHER_PARTS",
    "Models",
    "Source",
    "SourceKind",
    "Teacher",
    "TeacherPart",
    "TeacherState",
    "build_teacher",
    "class_prior",
    "ensemble",
    "lda",
    "observe",
    "observe_sources",
]
