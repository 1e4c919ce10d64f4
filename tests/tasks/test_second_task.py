"""A task that src/ has never heard of goes through every stage: nothing outside tasks/ knows what a target is."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recursight.data.store import open_store
from recursight.errors import InputError
from recursight.evaluation.table import ranking_text
from recursight.files import read_json
from recursight.layout import Layout
from recursight.models.bundle import read_card
from recursight.stages import compare, evaluate, prepare, train
from recursight.tasks import TASKS

from .brightness import NAME, Brightness, project

CANDIDATES = {
    "gru": {"layer": "gru", "hidden": 8},
    "blind": {"layer": "gru", "hidden": 8, "train": {"learning_rate": 1e-6, "epochs": 1}},
}


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    TASKS[NAME] = Brightness
    yield
    del TASKS[NAME]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = project(tmp_path_factory.mktemp("brightness") / "project", CANDIDATES, seeds=(0, 1))
    prepare.run(layout)
    for name in CANDIDATES:
        train.run(layout, name, defer_tracking=True)
        evaluate.run(layout, name)
    compare.run(layout)
    return layout


def test_targets_reach_the_store_as_they_are_written(compared: Layout) -> None:
    store = open_store(compared.store)
    assert [len(store.indices(split)) for split in ("train", "validation", "test")] == [163, 29, 48]
    written = store.targets["value"].astype(float)
    np.testing.assert_allclose(written, store.frames.mean(axis=(1, 2, 3)) / 255, atol=1e-6)


def test_training_minimises_its_loss_and_reports_its_curves(compared: Layout) -> None:
    history = pd.read_csv(compared.bundle("gru", 0) / "history.csv")
    assert [name for name in history if name.startswith(("train", "validation"))] == [
        "train_loss",
        "train_absolute_error",
        "validation_loss",
        "validation_absolute_error",
    ]
    assert history["validation_loss"].iloc[-1] < history["validation_loss"].iloc[0] / 4
    card = read_card(compared.bundle("gru", 0))
    assert (card.task, card.vocabulary, card.outputs) == ({"name": NAME}, [], 1)
    assert (compared.bundle("gru", 0) / "gradient_norms.csv").stat().st_size > 100


def test_evaluation_has_its_metrics_and_answers(compared: Layout) -> None:
    folder = compared.evaluation_of("gru", 1)
    test = read_json(folder / "metrics.json")["test"]
    assert list(test) == ["count", "absolute_error", "absolute_error_low", "absolute_error_high", "squared_error"]
    rows = pd.read_parquet(folder / "predictions.parquet")
    rows = rows[rows["split"] == "test"]
    assert rows["answer"].map(lambda answer: answer[0]).to_numpy() == pytest.approx(rows["predicted"].to_numpy())
    assert test["absolute_error"] == pytest.approx((rows["actual"] - rows["predicted"]).abs().mean())
    assert test["absolute_error_low"] < test["absolute_error"] < test["absolute_error_high"] < 0.1


def test_the_lowest_error_wins_by_a_paired_bootstrap(compared: Layout) -> None:
    comparison = read_json(compared.comparison / "comparison.json")
    best, worst = comparison["ranking"]
    assert (best["candidate"], worst["candidate"], comparison["exact"]) == ("gru", "blind", False)
    assert best["test_absolute_error"] < worst["test_absolute_error"]
    assert worst["difference"] > worst["difference_low"] > 0
    assert worst["verdict"] == "worse"
    assert worst["p_holm"] < 0.001
    report = (compared.comparison / "report.html").read_text()
    assert "test absolute error" in report
    assert "paired bootstrap" in report
    for word in ("accuracy", "confusion", "class ", "McNemar"):
        assert word not in report.lower()
        assert word not in ranking_text(comparison)


def test_an_option_that_its_loss_does_not_have_is_refused(compared: Layout) -> None:
    written = compared.params.read_text()
    try:
        compared.params.write_text(written.replace("epochs: 12", "epochs: 12\n  label_smoothing: 0.1"))
        with pytest.raises(InputError, match=r"train.label_smoothing: the loss of this task has no such option"):
            train.run(compared, "gru")
    finally:
        compared.params.write_text(written)


def test_a_bundle_of_another_task_is_refused(compared: Layout) -> None:
    written = compared.params.read_text()
    try:
        compared.params.write_text(written.replace(f"task: {NAME}", "task: classification"))
        with pytest.raises(InputError, match="trained for another task"):
            evaluate.run(compared, "gru")
    finally:
        compared.params.write_text(written)


def test_a_metric_that_it_does_not_have_is_refused(tmp_path: Path) -> None:
    layout = project(tmp_path / "project", CANDIDATES)
    written = layout.params.read_text()
    layout.params.write_text(written.replace("bootstrap_samples: 300", "metric: absolut_error"))
    with pytest.raises(InputError, match=r"compare.metric: 'brightness' has no metric .*did you mean 'absolute_error'"):
        prepare.run(layout)
