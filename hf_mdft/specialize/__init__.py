"""Phase 2: the meta-model and the pool specialise each other, task by task."""

from .arguments import SpecializeArguments
from .gate import Decision, decide
from .given import check_head
from .one_task import specialize_task
from .rounds import MetaTower, specialize_in_rounds
from .specialist import Specialist
from .student import StudentTrainer
from .teacher import TEACHER_PARTS, Source, Teacher, build_teacher
from .terms import STUDENT_TERMS


__all__ = [
    "STUDENT_TERMS",
    "TEACHER_PARTS",
    "Decision",
    "MetaTower",
    "Source",
    "Specialist",
    "SpecializeArguments",
    "StudentTrainer",
    "Teacher",
    "build_teacher",
    "check_head",
    "decide",
    "specialize_in_rounds",
    "specialize_task",
]
