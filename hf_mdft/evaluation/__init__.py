"""Measuring models: the only place where labels are read."""

from .accuracy import Accuracy, accuracy, predict
from .baselines import BASELINES, combined_tower
from .paired import mcnemar
from .results import Report


__all__ = ["BASELINES", "Accuracy", "Report", "accuracy", "combined_tower", "mcnemar", "predict"]
