"""Every score against scikit-learn or against what it must be by construction."""

import ast

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics

from recursight.errors import InputError
from recursight.evaluation.metrics import scores
from recursight.tasks import TASKS, Batch, make_task
from recursight.tasks.classification import Classification, calibration_error, confusion, per_class, reliability


def rows_of(actual: np.ndarray, probabilities: np.ndarray, **options: int) -> pd.DataFrame:
    return Classification(**options).score(probabilities, actual, list("abcdefghij")[: probabilities.shape[1]])


def scored(actual: np.ndarray, probabilities: np.ndarray, **options: int) -> dict[str, float]:
    return scores(rows_of(actual, probabilities, **options), Classification(**options), 0.95)


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
    found = scored(actual, probabilities, top_k=2, calibration_bins=15)
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
    with_absent = scored(actual, probabilities, top_k=2, calibration_bins=10)
    without = scored(actual, probabilities[:, :3], top_k=2, calibration_bins=10)
    assert with_absent == pytest.approx(without)
    rows = rows_of(actual, probabilities)
    table = per_class(rows)
    assert table["support"].tolist()[3] == 0
    assert table.loc[3, ["precision", "recall", "f1"]].isna().all()
    counts = confusion(rows)
    assert counts.shape == (4, 4)
    assert counts[3].sum() == counts[:, 3].sum() == 0
    assert Classification().slices(rows).index.tolist() == ["a", "b", "c"]


def test_macro_f1_is_the_mean_of_the_per_class_table() -> None:
    actual, probabilities = answers(200, 6, seed=3, occurring=5)
    predicted = probabilities.argmax(axis=1)
    assert (predicted == 5).any()  # predicted though it never occurs: that counts against
    table = per_class(rows_of(actual, probabilities))
    found = scored(actual, probabilities, top_k=1, calibration_bins=10)
    assert found["macro_f1"] == pytest.approx(table["f1"].mean())
    assert table["f1"].notna().all()
    assert table.loc[5, "f1"] == 0


def test_confusion_rows_are_actual_and_columns_predicted() -> None:
    rows = rows_of(np.array([0, 0, 1]), np.eye(2)[[1, 0, 1]])
    assert confusion(rows).tolist() == [[1, 1], [0, 1]]


def test_top_k_of_all_classes_is_certain() -> None:
    actual, probabilities = answers(20, 3)
    assert scored(actual, probabilities, top_k=3)["top_k_accuracy"] == 1
    assert scored(actual, probabilities, top_k=99)["top_k_accuracy"] == 1


def calibrated(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes, of which the first is right exactly as often as its probability says."""
    generator = np.random.default_rng(seed)
    first = generator.uniform(0.5, 1, count)
    actual = (generator.uniform(size=count) > first).astype(int)
    return actual, np.stack([first, 1 - first], axis=1)


def error_of(actual: np.ndarray, probabilities: np.ndarray) -> float:
    return calibration_error(reliability(rows_of(actual, probabilities), 15, 0.95))


def test_calibration_error_vanishes_for_honest_probabilities_and_only_for_them() -> None:
    actual, probabilities = calibrated(200_000, seed=0)
    assert error_of(actual, probabilities) < 0.005
    overconfident = np.stack([np.full(200_000, 0.99), np.full(200_000, 0.01)], axis=1)
    assert error_of(actual, overconfident) == pytest.approx(0.99 - (actual == 0).mean())


def test_reliability_bins_hold_every_image_once_and_keep_empty_bins() -> None:
    actual, probabilities = calibrated(1000, seed=1)
    bins = reliability(rows_of(actual, probabilities), 10, 0.95)
    assert bins["count"].sum() == 1000
    empty = bins["count"] == 0
    assert empty.sum() >= 4  # the likelier of two classes is never below one half
    assert bins.loc[empty, ["confidence", "accuracy", "accuracy_low", "accuracy_high"]].isna().all(axis=None)
    filled = bins[~empty]
    assert ((filled["confidence"] > filled["low"]) & (filled["confidence"] <= filled["high"])).all()
    assert ((filled["accuracy_low"] <= filled["accuracy"]) & (filled["accuracy"] <= filled["accuracy_high"])).all()


def test_certain_and_right_everywhere_is_perfect() -> None:
    actual = np.array([0, 1, 2, 1])
    found = scored(actual, np.eye(3, dtype=np.float32)[actual], top_k=2)
    assert found["accuracy"] == found["macro_f1"] == found["top_k_accuracy"] == found["accuracy_high"] == 1
    assert found["accuracy_low"] < 0.6  # four images prove little
    assert found["calibration_error"] == 0
    assert found["log_loss"] == pytest.approx(0, abs=1e-9)


EXAMPLES = pd.DataFrame({"id": ["x", "y", "z"]}, index=[4, 7, 9])


def targets(*values: str, examples: tuple[int, ...] = (4, 7, 9)) -> pd.DataFrame:
    return pd.DataFrame({"example": examples, "value": pd.Categorical(values, ["10", "2", "unused"])})


def test_targets_become_codes_in_the_order_of_the_source() -> None:
    task = Classification()
    assert task.vocabulary(targets("2", "10", "2")) == ["10", "2"]
    assert task.encode(EXAMPLES, targets("2", "10", "2"), ["2", "10"]).tolist() == [0, 1, 0]
    assert task.encode(EXAMPLES, targets("2", "10", "2"), ["2"]).tolist() == [0, -1, 0]


def test_an_example_has_one_class() -> None:
    with pytest.raises(InputError, match="example x has several classes"):
        Classification().encode(EXAMPLES, targets("2", "10", "2", "2", examples=(4, 4, 7, 9)), ["2", "10"])
    with pytest.raises(InputError, match="example y has no class"):
        Classification().encode(EXAMPLES, targets("2", "10", examples=(4, 9)), ["2", "10"])
    with pytest.raises(InputError, match="one class only"):
        Classification().strata(["2"])


def test_a_class_that_was_not_trained_counts_as_wrong() -> None:
    rows = rows_of(np.array([0, -1]), np.array([[0.9, 0.1], [0.9, 0.1]]))
    assert rows["right"].tolist() == [True, False]
    assert rows["log_loss"].iloc[1] > 30
    assert not rows["in_top_k"].iloc[1]
    found = scores(rows, Classification(), 0.95)
    assert found["accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx(metrics.f1_score([0, -1], [0, 0], average="macro"))


def test_the_loss_is_one_value_an_example_and_takes_label_smoothing() -> None:
    outputs = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    batch = Batch(torch.zeros(2, 1, 1, 1), None, torch.tensor([0, 2]))
    task = Classification()
    log = torch.log_softmax(outputs, dim=1)
    plain = task.loss(outputs, batch)
    assert plain.tolist() == pytest.approx([-log[0, 0].item(), -log[1, 2].item()])
    smooth = task.loss(outputs, batch, label_smoothing=0.3)
    assert smooth[0].item() == pytest.approx(0.7 * plain[0].item() - 0.1 * log[0].sum().item())
    assert task.curves(outputs, batch)["accuracy"].tolist() == [True, False]


def test_answers_are_presented_and_summarised() -> None:
    answers = np.array([[0.25, 0.75]])
    assert Classification().present(answers, ["a", "b"]) == [
        {"class": "b", "probability": 0.75, "probabilities": {"a": 0.25, "b": 0.75}}
    ]
    assert Classification().summary(answers, ["a", "b"]).to_dict("records") == [{"predicted": "b", "confidence": 0.75}]


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_served_by_a_file_that_needs_numpy_alone(name: str) -> None:
    imported = {
        node.names[0].name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(make_task(name, {}).served.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported <= {"numpy", "typing", "collections.abc"}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_metrics_by_their_names(name: str) -> None:
    task = make_task(name, {})
    assert all(key == metric.name for key, metric in task.metrics.items())
    assert task.default is next(iter(task.metrics.values()))
    assert set(task.minimums) <= set(task.metrics)
