"""evaluate@NAME on a really trained bundle: every file, and that they agree with each other."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from recursight.data.store import open_store
from recursight.errors import InputError
from recursight.files import read_json, write_json
from recursight.layout import Layout
from recursight.stages import evaluate
from tests.stages.trained import CANDIDATES, project


@pytest.fixture(scope="module")
def layout(digits_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Two seeds of one candidate, evaluated."""
    root = tmp_path_factory.mktemp("evaluated")
    layout = project(root, digits_store, [0, 3], {"gru": CANDIDATES["gru"]})
    evaluate.run(layout, "gru")
    return layout


def predictions(layout: Layout, seed: int, split: str) -> pd.DataFrame:
    table = pd.read_parquet(layout.evaluation_of("gru", seed) / "predictions.parquet")
    return table[table["split"] == split]


def test_every_file_is_there(layout: Layout) -> None:
    for seed in (0, 3):
        names = {path.name for path in layout.evaluation_of("gru", seed).iterdir()}
        assert names == {
            "metrics.json",
            "predictions.parquet",
            "confusion.csv",
            "confusion.svg",
            "per_class.csv",
            "reliability.csv",
            "reliability.svg",
            "mistakes.svg",
        }
        for name in ("reliability.svg", "mistakes.svg"):
            ElementTree.parse(layout.evaluation_of("gru", seed) / name)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_predictions_hold_the_split_and_explain_the_metrics(layout: Layout, split: str) -> None:
    store = open_store(layout.store)
    table = predictions(layout, 3, split)
    assert table["id"].tolist() == store.examples["id"].iloc[store.indices(split)].tolist()
    assert table["actual"].tolist() == store.targets_of(store.indices(split))["value"].tolist()
    likelihoods = np.stack(table["answer"].to_list())
    assert likelihoods.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert table["predicted"].tolist() == [str(label) for label in likelihoods.argmax(axis=1)]
    figures = read_json(layout.evaluation_of("gru", 3) / "metrics.json")[split]
    assert figures["count"] == len(table)
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(table["actual"], table["predicted"]))
    assert figures["macro_f1"] == pytest.approx(metrics.f1_score(table["actual"], table["predicted"], average="macro"))
    assert 0.3 < figures["accuracy"] < 1  # it was trained, and not for long


def test_confusion_files_agree_with_the_predictions(layout: Layout) -> None:
    folder = layout.evaluation_of("gru", 0)
    counts = pd.read_csv(folder / "confusion.csv", index_col="actual")
    table = predictions(layout, 0, "test")
    expected = metrics.confusion_matrix(table["actual"], table["predicted"], labels=[str(name) for name in range(10)])
    assert (counts.to_numpy() == expected).all()
    shares = expected / expected.sum(axis=1, keepdims=True)
    classes = pd.read_csv(folder / "per_class.csv")
    assert classes["recall"].to_numpy() == pytest.approx(np.diag(shares))
    assert classes["support"].tolist() == expected.sum(axis=1).tolist()


def test_metric_is_the_mean_over_seeds_and_the_plot_holds_all_of_them(layout: Layout) -> None:
    each = [read_json(layout.evaluation_of("gru", seed) / "metrics.json") for seed in (0, 3)]
    mean = read_json(layout.metrics("gru"))
    assert mean["test"]["accuracy"] == pytest.approx((each[0]["test"]["accuracy"] + each[1]["test"]["accuracy"]) / 2)
    assert mean["train_seconds"] == pytest.approx(3)
    assert mean["parameters"] == each[0]["parameters"]
    assert type(mean["parameters"]) is int
    assert len(pd.read_csv(layout.answers_plot("gru"))) == 2 * each[0]["test"]["count"]
    assert all(figures["latency_ms"] > 0 and figures["throughput"] > 0 for figures in each)


def test_a_second_run_gives_the_same_bytes_except_for_timings(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    def files() -> dict[str, bytes]:
        folder = layout.evaluation_of("gru", 0)
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "metrics.json"}

    before = files()
    evaluate.run(layout, "gru")
    assert files() == before
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["evaluate gru seed 0", "evaluate gru seed 3"]


def test_other_data_is_refused_and_nothing_changes(digits_store: Path, tmp_path: Path) -> None:
    layout = project(tmp_path, digits_store, [0], {"conv": CANDIDATES["conv"]})
    evaluate.run(layout, "conv")
    before = layout.metrics("conv").read_bytes()
    summary = read_json(layout.store / "store.json")
    write_json(layout.store / "store.json", summary | {"digest": "0" * 64})
    with pytest.raises(InputError, match="trained on other data"):
        evaluate.run(layout, "conv")
    assert layout.metrics("conv").read_bytes() == before
    assert [path.name for path in layout.evaluation("conv").parent.iterdir()] == ["conv"]


def test_unknown_and_untrained_candidates_are_refused(layout: Layout) -> None:
    with pytest.raises(InputError, match="did you mean 'gru'"):
        evaluate.run(layout, "gruu")
    text = layout.params.read_text()
    layout.params.write_text(text.replace("gru:", "other:"))
    try:
        with pytest.raises(InputError, match="no trained candidate"):
            evaluate.run(layout, "other")
    finally:
        layout.params.write_text(text)
