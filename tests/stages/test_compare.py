"""compare on really trained and evaluated bundles."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from recursight.cli import app
from recursight.errors import InputError
from recursight.evaluation.significance import mcnemar
from recursight.executors.local import flow_mark
from recursight.files import read_json, write_json
from recursight.layout import Layout
from recursight.stages import compare, evaluate
from recursight.stages.compare import on_one_line
from tests.stages.trained import CANDIDATES, project

LONGER = {"wide": {"layer": "gru", "hidden": 48, "bidirectional": True}}


@pytest.fixture(scope="module")
def layout(digits_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = project(tmp_path_factory.mktemp("compared"), digits_store, [0, 1], CANDIDATES | LONGER)
    for name in CANDIDATES | LONGER:
        evaluate.run(layout, name)
    compare.run(layout)
    return layout


def test_the_ranking_follows_validation_and_reports_test(layout: Layout) -> None:
    summary = read_json(layout.comparison / "comparison.json")
    means = {name: read_json(layout.metrics(name)) for name in CANDIDATES | LONGER}
    expected = sorted(means, key=lambda name: -means[name]["validation"]["accuracy"])
    assert [row["candidate"] for row in summary["ranking"]] == expected
    assert summary["winner"] == expected[0]
    for row in summary["ranking"]:
        assert row["test_accuracy"] == pytest.approx(means[row["candidate"]]["test"]["accuracy"])
        for metric in ("test_accuracy", "test_macro_f1", "test_log_loss"):
            assert row[f"{metric}_low"] < row[metric] < row[f"{metric}_high"]
    of_seeds = {
        seed: read_json(layout.evaluation_of(summary["winner"], seed) / "metrics.json")["validation"] for seed in (0, 1)
    }
    assert summary["winner_seed"] == max(of_seeds, key=lambda seed: of_seeds[seed]["accuracy"])
    assert pd.read_csv(layout.comparison / "ranking.csv")["candidate"].tolist() == expected


def test_p_values_are_those_of_the_predictions(layout: Layout) -> None:
    def right(name: str, seed: int) -> np.ndarray:
        table = pd.read_parquet(layout.evaluation_of(name, seed) / "predictions.parquet")
        test = table[table["split"] == "test"]
        return (test["actual"] == test["predicted"]).to_numpy()

    first, *others = read_json(layout.comparison / "comparison.json")["ranking"]
    assert first["verdict"] == "winner"
    assert first["p_value"] is None
    for row in others:
        both = [np.stack([right(name, seed) for seed in (0, 1)]) for name in (first["candidate"], row["candidate"])]
        assert row["p_value"] == pytest.approx(mcnemar(*both))
        assert row["p_holm"] >= row["p_value"]
        assert row["verdict"] in ("tied", "worse", "better on test")


def test_the_report_loads_nothing_and_repeats(layout: Layout) -> None:
    page = (layout.comparison / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|<link|<iframe|<script src", page)
    assert {source[:22] for source in re.findall(r'src="([^"]*)', page)} == {"data:image/png;base64,"}
    compare.run(layout)
    assert (layout.comparison / "report.html").read_text(encoding="utf-8") == page


def test_the_command_prints_the_final_table_and_removes_leftovers(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(layout.root)
    (layout.evaluation("gone") / "seed-0").mkdir(parents=True)
    first, *lines = CliRunner().invoke(app, ["compare"]).output.splitlines()
    assert not layout.evaluation("gone").exists()
    assert first == "removed artifacts/evaluations/gone: no such candidate in params.yaml any more"
    for name, value in flow_mark().items():  # a flow prints the table itself
        monkeypatch.setenv(name, value)
    assert CliRunner().invoke(app, ["compare"]).output == ""
    assert len(lines) == 4
    assert lines[0].startswith("candidate")
    assert lines[1].endswith("winner")


def test_what_is_missing_or_stale_is_named(layout: Layout) -> None:
    path = layout.evaluation_of("gru", 1) / "metrics.json"
    content = path.read_text()
    before = (layout.comparison / "comparison.json").read_bytes()
    try:
        path.unlink()
        with pytest.raises(InputError, match="gru with seed 1 is not evaluated yet"):
            compare.run(layout)
        write_json(path, json.loads(content) | {"data_digest": "other"})
        with pytest.raises(InputError, match="gru with seed 1 was evaluated on other data"):
            compare.run(layout)
    finally:
        path.write_text(content)
    assert (layout.comparison / "comparison.json").read_bytes() == before


def test_a_single_candidate_with_a_single_seed(digits_store: Path, tmp_path: Path) -> None:
    layout = project(tmp_path, digits_store, [7], {"conv": CANDIDATES["conv"]})
    evaluate.run(layout, "conv")
    compare.run(layout)
    summary = read_json(layout.comparison / "comparison.json")
    assert (summary["winner"], summary["winner_seed"], len(summary["ranking"])) == ("conv", 7, 1)
    assert "McNemar" not in (layout.comparison / "report.html").read_text(encoding="utf-8")


def test_the_report_counts_the_confusions_of_all_seeds(layout: Layout) -> None:
    report = (layout.comparison / "report.html").read_text(encoding="utf-8")
    assert "of 718 test images are misclassified" in report  # 359 of each of two seeds


def test_architectures_in_words(layout: Layout) -> None:
    from recursight.params import load

    params = load(layout.params)
    assert on_one_line(params.candidate("wide")) == "rows → gru 48 both ways → last"
    assert on_one_line(params.candidate("conv")) == "conv (channels 6) → whole"
