"""Every score against scikit-learn or against what it must be by construction."""

import numpy as np
import pytest
from sklearn import metrics

from recursight.evaluation.scores import (
    calibration_error,
    confusion,
    normalised,
    per_class,
    reliability,
    scores,
    top_k_accuracy,
)


def answers(count: int, classes: int, seed: int = 0, occurring: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Labels and float32 probabilities that are right more often than not."""
    generator = np.random.default_rng(seed)
    actual = generator.integers(0, occurring or classes, count)
    logits = generator.normal(size=(count, classes))
    logits[np.arange(count), actual] += 2
    exponent = np.exp(logits)
    return actual, (exponent / exponent.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_scores_equal_those_of_scikit_learn(classes: int) -> None:
    actual, probabilities = answers(500, classes)
    predicted = probabilities.argmax(axis=1)
    found = scores(actual, probabilities, top_k=2, bins=15, confidence=0.95)
    assert found["count"] == 500
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(actual, predicted))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(actual, predicted, average="macro"))
    picked = probabilities[np.arange(500), actual].astype(np.float64)
    assert found["log_loss"] == pytest.approx(-np.log(picked).mean(), rel=1e-5)
    in_two = (np.argsort(-probabilities, axis=1)[:, :2] == actual[:, np.newaxis]).any(axis=1).mean()
    assert found["top_k_accuracy"] == pytest.approx(in_two)
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]
    assert all(type(value) in (int, float) for value in found.values())  # JSON takes them


def test_a_class_without_images_counts_neither_for_nor_against() -> None:
    actual, probabilities = answers(300, 4, occurring=3)
    probabilities[:, 3] = 0  # and it is never predicted
    with_absent = scores(actual, probabilities, top_k=2, bins=10, confidence=0.95)
    without = scores(actual, probabilities[:, :3], top_k=2, bins=10, confidence=0.95)
    assert with_absent == pytest.approx(without)
    table = per_class(actual, probabilities.argmax(axis=1), ["a", "b", "c", "never"])
    assert table["support"].tolist()[3] == 0
    assert table.loc[3, ["precision", "recall", "f1"]].isna().all()
    counts = confusion(actual, probabilities.argmax(axis=1), 4)
    assert counts.shape == (4, 4)
    assert counts[3].sum() == counts[:, 3].sum() == 0
    assert np.isnan(normalised(counts)[3]).all()
    assert normalised(counts)[:3].sum(axis=1) == pytest.approx(1)


def test_macro_f1_is_the_mean_of_the_per_class_table() -> None:
    actual, probabilities = answers(200, 6, seed=3, occurring=5)
    predicted = probabilities.argmax(axis=1)
    assert (predicted == 5).any()  # predicted though it never occurs: that counts against
    table = per_class(actual, predicted, list("abcdef"))
    found = scores(actual, probabilities, top_k=1, bins=10, confidence=0.9)
    assert found["macro_f1"] == pytest.approx(table["f1"].mean())
    assert table["f1"].notna().all()
    assert table.loc[5, "f1"] == 0


def test_confusion_rows_are_actual_and_columns_predicted() -> None:
    assert confusion(np.array([0, 0, 1]), np.array([1, 0, 1]), 2).tolist() == [[1, 1], [0, 1]]


def test_top_k_of_all_classes_is_certain() -> None:
    actual, probabilities = answers(20, 3)
    assert top_k_accuracy(actual, probabilities, 3) == top_k_accuracy(actual, probabilities, 99) == 1


def calibrated(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes, of which the first is right exactly as often as its probability says."""
    generator = np.random.default_rng(seed)
    first = generator.uniform(0.5, 1, count)
    actual = (generator.uniform(size=count) > first).astype(int)
    return actual, np.stack([first, 1 - first], axis=1)


def error_of(actual: np.ndarray, probabilities: np.ndarray) -> float:
    return calibration_error(reliability(actual, probabilities, bins=15, confidence=0.95))


def test_calibration_error_vanishes_for_honest_probabilities_and_only_for_them() -> None:
    actual, probabilities = calibrated(200_000, seed=0)
    assert error_of(actual, probabilities) < 0.005
    overconfident = np.stack([np.full(200_000, 0.99), np.full(200_000, 0.01)], axis=1)
    assert error_of(actual, overconfident) == pytest.approx(0.99 - (actual == 0).mean())


def test_reliability_bins_hold_every_image_once_and_keep_empty_bins() -> None:
    actual, probabilities = calibrated(1000, seed=1)
    bins = reliability(actual, probabilities, bins=10, confidence=0.95)
    assert bins["count"].sum() == 1000
    empty = bins["count"] == 0
    assert empty.sum() >= 4  # the likelier of two classes is never below one half
    assert bins.loc[empty, ["confidence", "accuracy", "accuracy_low", "accuracy_high"]].isna().all(axis=None)
    filled = bins[~empty]
    assert ((filled["confidence"] > filled["low"]) & (filled["confidence"] <= filled["high"])).all()
    assert ((filled["accuracy_low"] <= filled["accuracy"]) & (filled["accuracy"] <= filled["accuracy_high"])).all()


def test_certain_and_right_everywhere_is_perfect() -> None:
    actual = np.array([0, 1, 2, 1])
    found = scores(actual, np.eye(3, dtype=np.float32)[actual], top_k=2, bins=15, confidence=0.95)
    assert found["accuracy"] == found["macro_f1"] == found["top_k_accuracy"] == found["accuracy_high"] == 1
    assert found["accuracy_low"] < 0.6  # four images prove little
    assert found["calibration_error"] == 0
    assert found["log_loss"] == pytest.approx(0, abs=1e-9)
