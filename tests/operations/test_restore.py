"""A registered version goes back to its code, data and parameters, and predicts the same, digit for digit."""

import json
from pathlib import Path

import pytest
import yaml

from tests.workspace import Workspace


def restored(workspace: Workspace, version: int, status: int = 0) -> dict:
    printed = workspace.run("recursight", "restore", str(version), "--json", status=status)
    return json.loads(printed.splitlines()[-1])


def make_version(workspace: Workspace) -> None:
    workspace.run("dvc", "repro", "--quiet")
    workspace.run("recursight", "register")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A project with a version of committed parameters; the parameters of now are others."""
    made = Workspace(tmp_path)
    made.finish()
    made.change_params(prepare={"seed": 7}, candidates={"gru": {"layer": "gru", "hidden": 12}})
    return made


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_version_is_restored_and_what_is_lost_is_named(workspace: Workspace):
    from mlflow import MlflowClient

    commit = workspace.run("git", "rev-parse", "HEAD").strip()
    workspace.commit("another one")
    first = restored(workspace, 1)
    assert first["same_predictions"] is True
    assert first["missing"] == []
    assert first["parts"]["code"] == f"commit {commit}"
    assert "digit for digit" in first["parts"]["predictions"]
    tree = workspace.root / ".recursight" / "restored" / "1"
    candidates = yaml.safe_load((tree / "params.yaml").read_text())["candidates"]
    assert {name: options["hidden"] for name, options in candidates.items()} == {"elman": [24]}  # the winner
    assert yaml.safe_load((workspace.root / "params.yaml").read_text())["candidates"]["gru"]["hidden"] == 12
    assert not (tree / "mlflow.db").exists()
    assert workspace.run("git", "status", "--porcelain") == ""

    client = MlflowClient(f"sqlite:///{workspace.root / 'mlflow.db'}")
    client.set_model_version_tag("recursight", "1", "recursight.data_md5", "f" * 32 + ".dir")
    lost = restored(workspace, 1, status=1)
    assert lost["same_predictions"] is None
    assert lost["missing"][0].startswith(f"data: {'f' * 32}.dir is neither in DVC's cache nor in a remote")
    assert "no version 9" in workspace.run("recursight", "restore", "9", status=2)


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_version_of_parameters_that_no_commit_has_is_restored_too(workspace: Workspace):
    make_version(workspace)
    workspace.commit("another one")
    assert restored(workspace, 1)["same_predictions"] is True
    second = restored(workspace, 2)
    assert second["same_predictions"] is True
    assert "uncommitted changes" in second["missing"][0]
    assert workspace.run("git", "status", "--porcelain") == ""
    assert restored(workspace, 1)["same_predictions"] is True, "an earlier restoration is replaced"
