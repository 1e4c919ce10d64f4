"""A pipeline with nothing to do says so without Prefect and MLflow, and never while something is missing in MLflow."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recursight.executors import clone
from recursight.layout import Layout
from recursight.operations import up_to_date
from recursight.processes import ProcessIdentity
from recursight.tracking import connect, runs
from recursight.tracking.results import results
from tests.workspace import Workspace

pytestmark = [pytest.mark.slow]

HEAVY = {"mlflow", "prefect", "torch", "pandas", "sklearn", "matplotlib"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Everything is up to date, and known to be: the second command has looked."""
    made = Workspace(tmp_path_factory.mktemp("unchanged"))
    made.finish()
    shutil.rmtree(made.environment["PREFECT_HOME"])
    pipeline(made)
    return made


@pytest.fixture
def layout(workspace: Workspace) -> Layout:
    return Layout(workspace.root)


def pipeline(workspace: Workspace) -> tuple[dict[str, Any], set[str]]:
    """What the command prints as JSON, and the packages that it imports."""
    finished = subprocess.run(
        ["recursight", "pipeline", "--json"],
        cwd=workspace.root,
        env=workspace.environment | {"PYTHONPROFILEIMPORTTIME": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in finished.stderr.splitlines()}
    outcome: dict[str, Any] = json.loads(finished.stdout)
    return outcome, imported


def run_of(layout: Layout) -> Any:
    client = connect(layout)
    experiment = client.get_experiment_by_name("recursight")
    assert experiment is not None
    return runs.find_finished(client, experiment.experiment_id, candidate="elman")


def test_nothing_to_do_needs_neither_prefect_nor_mlflow(workspace: Workspace) -> None:
    outcome, imported = pipeline(workspace)
    assert outcome["ran"] == []
    assert outcome["registered"]["version"] == 1
    assert not outcome["registered"]["created"]
    assert "dvc" in imported
    assert not imported & HEAVY
    assert not (Path(workspace.environment["PREFECT_HOME"]) / "prefect.db").exists()


def test_a_run_that_was_deleted_is_sent_again(layout: Layout) -> None:
    connect(layout).delete_run(run_of(layout).info.run_id)
    assert run_of(layout) is None
    up_to_date.complete(layout)
    assert run_of(layout) is not None


def test_a_version_that_was_deleted_is_registered_again(layout: Layout) -> None:
    client = connect(layout)
    client.delete_registered_model("recursight")
    registered = up_to_date.complete(layout)
    assert registered is not None
    assert registered["created"]
    assert client.get_model_version_by_alias("recursight", "champion") is not None


def test_an_alias_that_was_deleted_is_set_again(layout: Layout) -> None:
    client = connect(layout)
    client.delete_registered_model_alias("recursight", "champion")
    up_to_date.complete(layout)
    assert client.get_model_version_by_alias("recursight", "champion") is not None


def test_another_store_is_looked_into(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    assert up_to_date._noted(layout) is not None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{layout.root / 'other.db'}")
    assert up_to_date._noted(layout) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert up_to_date._noted(layout) is None


def test_other_parameters_of_the_registry_are_a_new_question(workspace: Workspace, layout: Layout) -> None:
    workspace.change_params(registry={"minimums": {"accuracy": 0.04}})
    assert up_to_date.nothing_to_run(layout)
    assert up_to_date._noted(layout) is None
    up_to_date.complete(layout)
    assert up_to_date._noted(layout) is not None


def test_while_mlflow_shows_a_training_nothing_is_noted(layout: Layout) -> None:
    """It may be killed, and its run is then to be ended."""
    client = connect(layout)
    training = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    tags = {runs.PROCESS: str(ProcessIdentity.of(training.pid)), runs.ROOT: str(layout.root)}
    run = client.create_run(run_of(layout).info.experiment_id, tags=tags)
    try:
        up_to_date.complete(layout)
        assert up_to_date._noted(layout) is None
    finally:
        training.kill()
        training.communicate()
    up_to_date.complete(layout)
    assert client.get_run(run.info.run_id).info.status == "KILLED"
    assert up_to_date._noted(layout) is not None


def test_a_changed_file_of_a_result_is_a_new_question(layout: Layout) -> None:
    assert up_to_date._noted(layout) is not None
    drawn = results(layout)[0].evaluation
    assert drawn is not None
    picture = drawn / "mistakes.svg"
    before = picture.read_bytes()
    picture.write_bytes(before + b"\0")
    assert up_to_date._noted(layout) is None
    picture.write_bytes(before)
    assert up_to_date._noted(layout) is not None


def test_what_a_killed_pipeline_left_and_what_has_changed_is_work(workspace: Workspace, layout: Layout) -> None:
    assert up_to_date.nothing_to_run(layout)
    ended = subprocess.Popen(["true"])
    ended.wait()
    sign = clone.folder(layout) / "killed.json"
    sign.parent.mkdir(parents=True, exist_ok=True)
    sign.write_text(json.dumps({"host": socket.gethostname(), "pid": ended.pid, "started": 1.0}))
    assert not up_to_date.nothing_to_run(layout)
    sign.unlink()
    workspace.change_params(compare={"bootstrap_samples": 101})
    assert not up_to_date.nothing_to_run(layout)
