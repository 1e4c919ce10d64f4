"""Retraining for real: new parameters, a better model, and the gate between."""

import sqlite3
from pathlib import Path

import pytest

from tests.commands import recursight
from tests.workspace import Workspace

pytestmark = [pytest.mark.slow]

WEAK = {"elman": {"scan": "rows", "layer": "elman", "hidden": 4, "train": {"epochs": 1}}}
STRONG = {"gru": {"scan": "rows", "layer": "gru", "hidden": 64, "train": {"epochs": 12}}}


def events(workspace: Workspace) -> list[str]:
    """Names of the project's own events that Prefect has recorded."""
    with sqlite3.connect(workspace.root.parent / "prefect" / "prefect.db") as database:
        return [name for (name,) in database.execute("select event from events where event like 'model.%'")]


def test_a_better_model_takes_the_champions_place_and_a_worse_one_does_not(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.finish()["registered"]["version"] == 1
    before = events(workspace)

    workspace.change_params(candidates=WEAK)
    output = workspace.run("recursight", "retrain")
    assert "retrained: " in output
    assert "version 2 (elman) is challenger" in output
    assert "recursight version 1 " in recursight(workspace.root, "champion").stdout
    assert events(workspace) == before

    workspace.change_params(candidates=STRONG)
    output = workspace.run("recursight", "retrain")
    assert "version 3 (gru) is champion" in output
    assert "recursight version 3 (gru) is champion" in recursight(workspace.root, "champion").stdout
    history = recursight(workspace.root, "history").stdout
    assert events(workspace) == [*before, "model.promoted"]
    assert "elman" in history
