"""Measuring models: the only place where labels are read."""

from .accuracy import Accuracy, accuracy, predict
from .baselines import BASELINES, combined_tower
from .paired import mcnemar


__all__ = ["BASELINES", "Accuracy", "accuracy", "combined_tower", "mcnemar", "predict"]
