"""The champion answers: from the registry to predictions, and nothing else."""

from recursight.serving.champion import Prediction, decode_for, load_champion, predict_files, predictions
from recursight.serving.prediction_log import PredictionLog, read_log

__all__ = [
    "Prediction",
    "PredictionLog",
    "decode_for",
    "load_champion",
    "predict_files",
    "predictions",
    "read_log",
]
