"""Predictions by the champion: over HTTP, for files, for whole folders; and the log of them."""

from recursight.serving.champion import decode_for, load_champion, predict_files
from recursight.serving.prediction_log import PredictionLog, read_log

__all__ = [
    "PredictionLog",
    "decode_for",
    "load_champion",
    "predict_files",
    "read_log",
]
