"""Retraining for real: new parameters, a better model, and the gate between."""

import sqlite3
from pathlib import Path

import pytest

from tests.commands import recursight
from tests.workspace import SMALL, Workspace

pytestmark = [pytest.mark.slow]

WEAK = {"elman": {"scan": "rows", "layer": "elman", "hidden": 4, "train": {"epochs": 1}}}
STRONG = {"gru": {"scan": "rows", "layer": "gru", "hidden": 32}}


def events(workspace: Workspace) -> list[str]:
    """Names of the project's own events that Prefect has recorded."""
    with sqlite3.connect(workspace.root.parent / "prefect" / "prefect.db") as database:
        return [name for (name,) in database.execute("select event from events where event like 'model.%'")]


def test_a_better_model_takes_the_champions_place_and_a_worse_one_does_not(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.fill()
    lenient = {"minimums": {"accuracy": 0.05, "worst_class_recall": 0.0}}
    workspace.change_params(**SMALL | {"candidates": WEAK, "registry": lenient})
    assert "version 1 (elman) is champion" in workspace.run("recursight", "retrain")

    workspace.change_params(candidates=STRONG)
    output = workspace.run("recursight", "retrain")
    assert "retrained: " in output
    assert "version 2 (gru) is champion" in output
    assert "recursight version 2 (gru) is champion" in recursight(workspace.root, "champion").stdout

    workspace.change_params(candidates=WEAK)
    output = workspace.run("recursight", "retrain")
    assert "version 1 (elman) is challenger" in output
    assert "recursight version 2 (gru) is champion" in recursight(workspace.root, "champion").stdout
    history = recursight(workspace.root, "history").stdout
    assert events(workspace) == ["model.promoted", "model.promoted"]
    assert history.count("elman") >= 2
