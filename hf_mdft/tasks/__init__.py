"""Tasks and their images: labels dropped on load, images preprocessed once."""

from .images import Images
from .labelled import LabelledImages, read_labelled
from .preprocessor import Preprocessor, has_processor
from .task import Task
from .unlabelled import read_unlabelled


__all__ = [
    "Images",
    "LabelledImages",
    "Preprocessor",
    "Task",
    "has_processor",
    "read_labelled",
    "read_unlabelled",
]
