"""A task that src/ has never heard of is registered, judged, served, logged and monitored."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from recursight.data.store import open_store
from recursight.layout import Layout
from recursight.operations.monitor import check_drift
from recursight.registry import history, promote, register
from recursight.serving.champion import load_champion
from recursight.serving.folder import score_folder
from recursight.serving.prediction_log import PredictionLog, read_log
from recursight.stages import evaluate, prepare, train
from recursight.tasks import TASKS
from recursight.tracking import connect
from recursight.tracking.connection import fluent
from tests.conftest import ROOT
from tests.projects import choose, own_environment
from tests.serving.server import serving
from tests.tasks.brightness import NAME, Brightness, project

__all__ = ["own_environment"]

CANDIDATES = {
    "short": {"layer": "gru", "hidden": 8, "train": {"epochs": 4}},
    "gru": {"layer": "gru", "hidden": 8},
}
SERVE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from recursight.tasks import TASKS
from tests.tasks.brightness import NAME, Brightness
TASKS[NAME] = Brightness
from recursight.cli import main
main()
"""


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    TASKS[NAME] = Brightness
    yield
    del TASKS[NAME]


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """`short` became the first champion, `gru` replaced it."""
    layout = project(tmp_path_factory.mktemp("brightness") / "project", CANDIDATES)
    prepare.run(layout)
    for name in CANDIDATES:
        train.run(layout, name, defer_tracking=True)
        evaluate.run(layout, name)
    choose(layout, "short")
    first = register(layout)
    assert (first.alias, first.reason) == ("champion", "the first version to reach the minimums in params.yaml.")
    choose(layout, "gru")
    assert register(layout).alias == "challenger"
    assert promote(layout).promoted
    return layout


def test_the_gate_compares_by_a_paired_bootstrap_of_its_metric(promoted: Layout) -> None:
    decision, first = history(connect(promoted), "recursight")
    assert (decision.kind, decision.version, decision.champion) == ("promote", 2, 1)
    assert decision.rule["metric"] == "absolute_error"
    assert decision.rule["minimums"] == {"absolute_error": 0.2}
    before, now = (decision.numbers[role]["absolute_error"] for role in ("champion", "challenger"))
    assert decision.numbers["gain"] == pytest.approx(before - now)
    assert "gained" not in decision.numbers
    assert first.numbers["challenger"]["absolute_error"] == pytest.approx(before, rel=1e-3)


def test_a_minimum_that_it_misses_is_named(promoted: Layout, tmp_path: Path) -> None:
    content = yaml.safe_load(promoted.params.read_text())
    strict = content | {"registry": {"model_name": "strict", "minimums": {"squared_error": 1e-9}}}
    try:
        promoted.params.write_text(yaml.safe_dump(strict))
        refused = register(promoted)
    finally:
        promoted.params.write_text(yaml.safe_dump(content))
    assert refused.alias == "challenger"
    assert "no champion yet, but squared error" in refused.reason
    assert "is above 1e-09 (registry.minimums.squared_error)." in refused.reason


def test_the_card_names_its_metrics_and_no_class(promoted: Layout) -> None:
    card = connect(promoted).get_model_version("recursight", "2").description
    assert "A model for brightness" in card
    assert "| absolute error (95% interval) |" in card
    assert "An answer has the fields\n`brightness`." in card
    for word in ("accuracy", "confusion", "class", "probabilit"):
        assert word not in card.lower()


def test_the_model_answers_through_mlflow_as_it_does_here(promoted: Layout) -> None:
    images = np.array(open_store(promoted.store).frames[:5])
    champion = load_champion(promoted)
    with fluent(promoted) as mlflow:
        table = mlflow.pyfunc.load_model("models:/recursight@champion").predict(images)
    assert table.to_dict("records") == champion.task.present(champion.answers(images), champion.vocabulary)
    assert table["brightness"].to_numpy() == pytest.approx(images.mean(axis=(1, 2, 3)) / 255, abs=0.15)


def test_it_is_served_and_logged(promoted: Layout) -> None:
    image = np.array(open_store(promoted.store).frames[3, :, :, 0])
    with io.BytesIO() as file:
        Image.fromarray(image).save(file, "PNG")
        body = file.getvalue()
    with serving(promoted, [sys.executable, "-c", SERVE, "serve"]) as server:
        status, content, _ = server.ask(body=body, kind="image/png")
        assert status == 200, content
        (answer,) = content["predictions"]
        assert set(answer) == {"name", "brightness"}
        assert answer["brightness"] == pytest.approx(image.mean() / 255, abs=0.15)
        assert 'recursight_predictions_total{predicted=""} 1.0' in server.metrics()
        server.process.terminate()
        assert server.process.wait(60) == 0
    row = read_log(promoted.predictions).iloc[-1]
    assert row["estimate"] == pytest.approx(answer["brightness"])
    assert row["answer"] == pytest.approx([answer["brightness"]])


def test_files_and_folders_are_scored(promoted: Layout, tmp_path: Path) -> None:
    champion = load_champion(promoted)
    score_folder(champion, promoted.data, tmp_path / "scored.parquet")
    table = pd.read_parquet(tmp_path / "scored.parquet")
    assert list(table.columns) == ["path", "estimate", "answer", "model", "version"]
    assert len(table) == 240
    command = [sys.executable, "-c", SERVE, "predict", *map(str, (promoted.data / "0.png", promoted.data / "1.png"))]
    done = subprocess.run(
        [*command, "--json"], cwd=promoted.root, capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[0])
    assert line["brightness"] == pytest.approx(table.set_index("path")["estimate"]["0.png"])


def test_drift_of_its_answers_is_found(promoted: Layout) -> None:
    champion, store = load_champion(promoted), open_store(promoted.store)
    images = np.resize(255 - np.array(store.frames), (400, *champion.input_shape)) // 3
    with PredictionLog(promoted.predictions, rows=10_000) as log:
        log.record("predict", champion, images, champion.answers(images), wait=True)
    found = check_drift(promoted)
    assert found.verdict is not None, found.sentence
    (feature,) = (feature for feature in found.verdict.features if feature.name == "estimate")
    assert feature.drifted
    assert feature.test == "Kolmogorov-Smirnov"
