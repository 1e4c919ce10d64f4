"""The whole workflow for real: DVC, a Prefect server, MLflow's store, in a fresh copy of this repository."""

import copy
import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workspace import ROOT, SMALL, Workspace

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("workflow"))


@pytest.fixture(scope="module")
def first(workspace: Workspace) -> dict[str, Any]:
    """What the pipeline printed that has been run."""
    outcome = workspace.finish()
    workspace.commit("few candidates")
    return outcome


def pipeline(workspace: Workspace) -> dict[str, Any]:
    output = workspace.run("recursight", "pipeline", "--json")
    outcome: dict[str, Any] = json.loads(output[output.index("\n{") :] if "\n{" in output else output)
    return outcome


def runs(workspace: Workspace) -> list[str]:
    """Names of the finished MLflow runs, sorted."""
    query = """
        SELECT runs.name, status, EXISTS(
            SELECT * FROM latest_metrics WHERE latest_metrics.run_uuid = runs.run_uuid AND key = 'test_accuracy'
        )
        FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = 'recursight' ORDER BY runs.name
    """
    with closing(sqlite3.connect(workspace.root / "mlflow.db")) as store:
        found = store.execute(query).fetchall()
    assert all(status == "FINISHED" and evaluated for _, status, evaluated in found), found
    return [name for name, *_ in found]


def test_the_first_run_does_everything(workspace: Workspace, first: dict[str, Any]) -> None:
    assert set(first["ran"]) == {
        "prepare",
        *(f"{stage}@{name}" for stage in ("train", "evaluate") for name in SMALL["candidates"]),
        "compare",
    }
    assert (workspace.root / "artifacts" / "comparison" / "report.html").is_file()
    assert first["registered"]["version"] == 1
    assert first["registered"]["created"]
    assert first["registered"]["alias"] == "champion"
    assert runs(workspace) == ["elman", "gru"]


def test_prefect_knows_each_stage_by_its_name(workspace: Workspace, first: dict[str, Any]) -> None:
    with closing(sqlite3.connect(Path(workspace.environment["PREFECT_HOME"]) / "prefect.db")) as database:
        names, states, tags = zip(*database.execute("SELECT name, state_name, tags FROM task_run"), strict=True)
        artifacts = [key for (key,) in database.execute("SELECT key FROM artifact")]
    assert {"prepare", "train@elman", "train@gru", "evaluate@elman", "evaluate@gru", "compare"} <= set(names)
    assert set(states) <= {"Completed", "Cached"}
    assert set(artifacts) >= {"comparison", "winner"}
    assert set(tags) == {"[]"}  # with any, each stage would wait for a slot


def test_run_again_it_does_nothing(workspace: Workspace, first: dict[str, Any]) -> None:
    again = pipeline(workspace)
    assert again["ran"] == []
    assert again["registered"]["version"] == 1
    assert not again["registered"]["created"]
    assert runs(workspace) == ["elman", "gru"]


def test_dvc_finds_everything_up_to_date(workspace: Workspace, first: dict[str, Any]) -> None:
    assert "up to date" in workspace.run("dvc", "repro").splitlines()[-1]


def test_dvc_shows_figures_and_plots(workspace: Workspace, first: dict[str, Any]) -> None:
    shown = json.loads(workspace.run("dvc", "metrics", "show", "--json"))
    figures = shown[""]["data"]["artifacts/metrics/gru.json"]["data"]
    assert 0.5 < figures["test"]["accuracy"] <= 1
    page = workspace.run("dvc", "plots", "show", "--out", "plots")
    assert "index.html" in page
    text = (workspace.root / "plots" / "index.html").read_text()
    assert "Actual and predicted, gru" in text
    assert "Learning curve of elman" in text


def test_one_changed_candidate_reruns_itself_and_the_comparison(workspace: Workspace, first: dict[str, Any]) -> None:
    candidates = copy.deepcopy(SMALL["candidates"])
    candidates["gru"]["hidden"] = 12
    workspace.change_params(candidates=candidates)
    assert set(pipeline(workspace)["ran"]) == {"train@gru", "evaluate@gru", "compare"}
    assert runs(workspace) == ["elman", "gru", "gru"]


@pytest.mark.thorough
def test_a_candidate_that_dvc_adds_is_the_only_one_to_be_trained(workspace: Workspace, first: dict[str, Any]) -> None:
    candidates = copy.deepcopy(SMALL["candidates"]) | {"lstm": {"layer": "lstm", "hidden": [12, 8]}}
    candidates["gru"]["hidden"] = 12
    workspace.change_params(candidates=candidates)
    output = workspace.run("dvc", "repro")
    ran = {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}
    assert ran == {"train@lstm", "evaluate@lstm", "compare"}
    assert pipeline(workspace)["ran"] == []
    assert runs(workspace) == ["elman", "gru", "gru", "lstm"]


@pytest.mark.thorough
def test_what_the_tracking_store_has_never_seen_is_sent(workspace: Workspace, first: dict[str, Any]) -> None:
    before = runs(workspace)
    (workspace.root / "mlflow.db").unlink()
    assert pipeline(workspace)["ran"] == []
    assert set(runs(workspace)) == set(before)


@pytest.mark.thorough
def test_what_took_longest_begins_first_and_evaluations_come_last(workspace: Workspace, first: dict[str, Any]) -> None:
    artifacts = workspace.root / "artifacts"
    names = sorted(yaml.safe_load((workspace.root / "params.yaml").read_text())["candidates"])
    accounts = [artifacts / "candidates" / name / "seed-0" / "training.json" for name in names]
    for seconds, path in enumerate(accounts):
        account = json.loads(path.read_text())
        path.write_text(json.dumps(account | {"seconds": 10 * seconds + 1}))
    workspace.change_params(train={"learning_rate": 0.004})
    workspace.run("recursight", "pipeline", "--jobs", "1")
    began = [json.loads(path.read_text())["started_at"] for path in accounts]
    assert began == sorted(began, reverse=True)
    assert len(set(began)) == len(names) > 1
    evaluated = [artifacts / "evaluations" / name / "seed-0" / "metrics.json" for name in names]
    assert max(path.stat().st_mtime for path in accounts) < min(path.stat().st_mtime for path in evaluated)


@pytest.mark.thorough
def test_an_experiment_of_dvc_changes_one_candidate(workspace: Workspace, first: dict[str, Any]) -> None:
    workspace.commit("before the experiment")
    workspace.run("dvc", "exp", "run", "--quiet", "--name", "wide", "-S", "candidates.gru.hidden=20")
    shown = json.loads(workspace.run("dvc", "exp", "show", "--json"))
    assert "wide" in json.dumps(shown)
    card = workspace.root / "artifacts" / "candidates" / "gru" / "seed-0" / "card.json"
    assert json.loads(card.read_text())["architecture"]["hidden"] == [20]


def test_a_wrong_candidate_is_refused_before_anything_runs(workspace: Workspace, first: dict[str, Any]) -> None:
    candidates = copy.deepcopy(SMALL["candidates"])
    candidates["gru"]["layer"] = "grru"
    workspace.change_params(candidates=candidates)
    output = workspace.run("recursight", "pipeline", status=2)
    assert "params.yaml: candidates.gru.layer: 'grru' is unknown; did you mean 'gru'?" in output
    assert "Traceback" not in output


def test_a_pull_on_a_fresh_clone_brings_data_and_results(tmp_path: Path) -> None:
    clone = Workspace(tmp_path)
    committed = subprocess.run(["git", "show", ":dvc.lock"], cwd=ROOT, capture_output=True, check=True)
    (clone.root / "dvc.lock").write_bytes(committed.stdout)  # a pipeline that was run here has changed the file
    clone.run("dvc", "pull", "--quiet", "--remote", "embedded")
    assert (clone.root / "data" / "images-idx3-ubyte.gz").is_file()
    assert (clone.root / "artifacts" / "comparison" / "report.html").is_file()
    shown = json.loads(clone.run("dvc", "metrics", "show", "--json"))
    figures = shown[""]["data"]
    assert len(figures) >= 9
    assert all(figure["data"]["test"]["accuracy"] > 0.9 for figure in figures.values())


def test_data_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    empty = Workspace(tmp_path)
    empty.change_params(**SMALL)
    output = empty.run("recursight", "pipeline", status=2)
    assert "dvc pull" in output
    assert "Traceback" not in output
