"""The teacher: soft targets for a task's images, made by parts that are named in `SpecializeArguments.teacher`.

A new part is one file, one registration, and its name in that list.
"""

from ...experts import Source, observe
from . import centroids, class_prior, ensemble, hard, lda, student
from .base import TEACHER_PARTS, TeacherPart, TeacherState
from .sources import SOURCES, Models, SourceKind, held_out_classes, observe_others, observe_sources
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
    "centroids",
    "class_prior",
    "ensemble",
    "hard",
    "held_out_classes",
    "lda",
    "observe",
    "observe_others",
    "observe_sources",
    "student",
]
