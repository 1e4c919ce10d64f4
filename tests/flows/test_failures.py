"""What has ended well is tracked even where a run fails."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.workspace import SMALL, Workspace

pytestmark = [pytest.mark.slow]


def test_trainings_that_ended_well_reach_mlflow_though_another_fails(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    diverging = SMALL["candidates"]["elman"] | {"train": {"learning_rate": 1e30, "clip_norm": 0.0, "optimizer": "sgd"}}
    workspace.change_params(**SMALL | {"candidates": {"gru": SMALL["candidates"]["gru"], "elman": diverging}})
    workspace.fill()
    output = workspace.run("recursight", "pipeline", status=2)
    assert "elman" in output
    with closing(sqlite3.connect(workspace.root / "mlflow.db")) as store:
        rows = store.execute("SELECT name, status FROM runs WHERE status = 'FINISHED'").fetchall()
        scores = store.execute("SELECT count(*) FROM latest_metrics WHERE key = 'test_accuracy'").fetchone()
    assert rows == [("gru", "FINISHED")]
    assert scores == (1,)
    card = workspace.root / "artifacts" / "candidates" / "gru" / "seed-0" / "card.json"
    assert json.loads(card.read_text())["candidate"] == "gru"
