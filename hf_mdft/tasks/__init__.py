"""Tasks and their images: labels dropped on load, images preprocessed once."""

from .images import Images, Preprocessor
from .labelled import LabelledImages, read_labelled
from .task import Task
from .unlabelled import read_unlabelled


__all__ = [
    "Images",
    "LabelledImages",
    "Preprocessor",
    "Task",
    "read_labelled",
    "read_unlabelled",
]
