"""Tasks and their images: labels dropped on load, images preprocessed once, embedded in batches."""

from .embed import embed_images, embed_views, fast_bf16
from .images import Images, Preprocessor
from .labelled import LabelledImages, read_labelled
from .task import Task
from .unlabelled import read_unlabelled


__all__ = [
    "Images",
    "LabelledImages",
    "Preprocessor",
    "Task",
    "embed_images",
    "embed_views",
    "fast_bf16",
    "read_labelled",
    "read_unlabelled",
]
