"""Finished results: their folders, written, opened, shown and pushed; figures, report page, provenance."""

from .meta_model import FoldedMetaModel, MetaModel, MetaModelParts, folded_tower, push_meta_model
from .opening import PoolFolder, load_meta_model, open_result
from .record import Record
from .result import Result
from .specialist_model import SpecialistModel, SpecialistParts, VisionTower


__all__ = [
    "FoldedMetaModel",
    "MetaModel",
    "MetaModelParts",
    "PoolFolder",
    "Record",
    "Result",
    "SpecialistModel",
    "SpecialistParts",
    "VisionTower",
    "folded_tower",
    "load_meta_model",
    "open_result",
    "push_meta_model",
]
