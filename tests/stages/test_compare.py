"""compare on really trained and evaluated bundles."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recursight.errors import InputError
from recursight.evaluation.significance import mcnemar
from recursight.files import read_json, write_json
from recursight.layout import Layout
from recursight.stages import compare, evaluate
from recursight.stages.compare import on_one_line, sum_of_confusions
from recursight.stages.lifeline import mark_flow
from tests.stages.trained import CANDIDATES, project

LONGER = {"wide": {"layer": "gru", "hidden": 48, "bidirectional": True}}


@pytest.fixture(scope="module", autouse=True)
def _in_a_flow() -> Iterator[None]:
    """Stages then leave the tracking store, which is not what is tested here, to the flow."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in mark_flow().items():
            patch.setenv(name, value)
        yield


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
        assert row["test_low"] < row["test_accuracy"] < row["test_high"]
        assert row["macro_f1_low"] < row["macro_f1"] < row["macro_f1_high"]
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
        each = [mcnemar(right(first["candidate"], seed), right(row["candidate"], seed)) for seed in (0, 1)]
        assert row["p_value"] == pytest.approx(min(1, 2 * np.median(each)))
        assert row["p_holm"] >= row["p_value"]
        assert row["verdict"] in ("tied", "worse", "better on test")


def test_the_report_loads_nothing_and_repeats(layout: Layout) -> None:
    page = (layout.comparison / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|<link|<iframe|<script src", page)
    assert {source[:22] for source in re.findall(r'src="([^"]*)', page)} == {"data:image/png;base64,"}
    compare.run(layout)
    assert (layout.comparison / "report.html").read_text(encoding="utf-8") == page


def test_the_final_table_is_printed(
    layout: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECURSIGHT_FLOW", raising=False)  # a flow shows it itself
    compare.run(layout)
    lines = capsys.readouterr().out.splitlines()
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


def test_confusions_of_all_seeds_add_up() -> None:
    counts = sum_of_confusions(np.array([0, 1, 1]), np.array([[0, 1, 0], [0, 1, 1]]), 3)
    assert counts.tolist() == [[2, 0, 0], [1, 3, 0], [0, 0, 0]]


def test_architectures_in_words(layout: Layout) -> None:
    from recursight.params import load

    params = load(layout.params)
    assert on_one_line(params.candidate("wide")) == "rows → gru 48 both ways → last"
    assert on_one_line(params.candidate("conv")) == "conv (channels 6) → whole"
