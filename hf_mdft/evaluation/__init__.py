"""Measuring models: the only place where labels are read."""

from .accuracy import Accuracy, accuracy, predict
from .baselines import BASELINES, combined_tower
from .paired import average_p_value, mcnemar, paired_interval
from .report import Report
from .transductive import TRANSDUCTIVE, TransductiveMethod


__all__ = [
    "BASELINES",
    "TRANSDUCTIVE",
    "Accuracy",
    "Report",
    "TransductiveMethod",
    "accuracy",
    "average_p_value",
    "combined_tower",
    "mcnemar",
    "paired_interval",
    "predict",
]
