"""Phase 2: the meta-model and the pool specialise each other, task by task."""

from .arguments import SpecializeArguments
from .gate import Decision, decide
from .specialist import Specialist
from .student import StudentTrainer
from .task_loop import specialize_task
from .teacher import Source, Teacher, build_teacher


__all__ = [
    "Decision",
    "Source",
    "Specialist",
    "SpecializeArguments",
    "StudentTrainer",
    "Teacher",
    "build_teacher",
    "decide",
    "specialize_task",
]
