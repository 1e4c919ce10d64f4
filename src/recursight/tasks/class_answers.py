"""Answers of a classifier in readable form. MLflow copies this file into registered models: NumPy alone is imported."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def present(answers: np.ndarray, vocabulary: Sequence[str]) -> list[dict[str, Any]]:
    """From probabilities, N × K, one object each: class, probability, and the probabilities of all classes."""
    return [
        {
            "class": vocabulary[row.argmax()],
            "probability": float(row.max()),
            "probabilities": dict(zip(vocabulary, row.tolist(), strict=True)),
        }
        for row in answers
    ]


def summary(answers: np.ndarray, vocabulary: Sequence[str]) -> dict[str, np.ndarray]:
    """From probabilities, N × K: `predicted`, the likeliest class, and `confidence`, its probability."""
    names = np.array(vocabulary, dtype=object)
    return {"predicted": names[answers.argmax(axis=1)], "confidence": answers.max(axis=1).astype(np.float32)}
