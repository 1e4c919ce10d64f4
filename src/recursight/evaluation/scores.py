"""How good a classifier's answers are: every figure that an evaluation reports, from labels and probabilities.

Scores come from scikit-learn. A class that a split neither holds nor is said to hold is left out of averages rather
than counted as zero or one, and what cannot be computed is NaN rather than a guess.
"""

import numpy as np
import pandas as pd
from sklearn import metrics

from recursight.evaluation.significance import wilson_interval


def scores(
    actual: np.ndarray, probabilities: np.ndarray, *, top_k: int, bins: int, confidence: float
) -> dict[str, float]:
    """Summarises one split.

    Args:
        actual: labels, N.
        probabilities: N × K; each row sums to one.
        top_k: a prediction counts for top-k accuracy if the true class is among this many likeliest.
        bins: of the calibration error.
        confidence: of the interval around accuracy.

    Returns:
        count, accuracy, accuracy_low and accuracy_high (Wilson), macro_f1 (over the classes that occur or are
        predicted), log_loss (nats), top_k_accuracy and calibration_error.
    """
    probabilities = probabilities.astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)  # rounding of float32, which log_loss warns about
    predicted = probabilities.argmax(axis=1)
    right = int((predicted == actual).sum())
    low, high = wilson_interval(right, len(actual), confidence)
    return {
        "count": len(actual),
        "accuracy": right / len(actual),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": float(metrics.f1_score(actual, predicted, average="macro")),
        "log_loss": float(metrics.log_loss(actual, probabilities, labels=range(probabilities.shape[1]))),
        "top_k_accuracy": top_k_accuracy(actual, probabilities, top_k),
        "calibration_error": calibration_error(reliability(actual, probabilities, bins=bins, confidence=confidence)),
    }


def top_k_accuracy(actual: np.ndarray, probabilities: np.ndarray, top_k: int) -> float:
    """Share of images whose class is among the `top_k` likeliest; one where there are no more classes than that."""
    classes = probabilities.shape[1]
    if top_k >= classes:
        return 1.0
    if top_k == 1:
        return float((probabilities.argmax(axis=1) == actual).mean())
    return float(metrics.top_k_accuracy_score(actual, probabilities, k=top_k, labels=range(classes)))


def confusion(actual: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts, K × K: row = actual, column = predicted; classes that do not occur keep their row and column."""
    matrix: np.ndarray = metrics.confusion_matrix(actual, predicted, labels=range(classes))
    return matrix


def normalised(counts: np.ndarray) -> np.ndarray:
    """Shares of each actual class; NaN in the row of a class without images."""
    totals = counts.sum(axis=1, keepdims=True)
    shares: np.ndarray = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    return shares


def per_class(actual: np.ndarray, predicted: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """One row per class: class, precision, recall, f1, support.

    Precision of a class that is never predicted and recall of one that does not occur are NaN.
    """
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        actual, predicted, labels=range(len(classes)), zero_division=np.nan
    )
    return pd.DataFrame({"class": classes, "precision": precision, "recall": recall, "f1": f1, "support": support})


def reliability(actual: np.ndarray, probabilities: np.ndarray, *, bins: int, confidence: float) -> pd.DataFrame:
    """How often predictions of a given confidence are right (Guo et al., 2017, arXiv:1706.04599).

    Args:
        actual: labels, N.
        probabilities: N × K.
        bins: of equal width over confidences from 0 to 1.
        confidence: of the interval around each bin's accuracy.

    Returns:
        One row per bin: low, high, count, confidence (mean), accuracy, accuracy_low, accuracy_high; the last four NaN
        in an empty bin.
    """
    certainty = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == actual
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.digitize(certainty, edges[1:-1], right=True), 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    hits = np.bincount(place, weights=right, minlength=bins)
    sums = np.bincount(place, weights=certainty, minlength=bins)
    filled = counts > 0
    share = np.divide(hits, counts, out=np.full(bins, np.nan), where=filled)
    mean = np.divide(sums, counts, out=np.full(bins, np.nan), where=filled)
    intervals = np.full((bins, 2), np.nan)
    for index in np.flatnonzero(filled):
        intervals[index] = wilson_interval(float(hits[index]), int(counts[index]), confidence)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "count": counts,
            "confidence": mean,
            "accuracy": share,
            "accuracy_low": intervals[:, 0],
            "accuracy_high": intervals[:, 1],
        }
    )


def calibration_error(bins: pd.DataFrame) -> float:
    """Expected calibration error: mean distance of accuracy from confidence over bins, weighted by their counts.

    Args:
        bins: from `reliability`.
    """
    distance = (bins["accuracy"] - bins["confidence"]).abs().fillna(0.0)
    return float((distance * bins["count"]).sum() / bins["count"].sum())
