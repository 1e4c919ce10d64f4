"""Whole pipelines and a tracking server that is away, slow or lossy; and several clones that share one."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from recursight import access
from recursight.layout import Layout
from recursight.tracking.results import results
from tests.platforms import TINY, running
from tests.tracking.servers import Server, door_to
from tests.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SLOW_SECONDS = 2.0
EVALUATION = {
    "confusion.svg",
    "reliability.svg",
    "mistakes.svg",
    "per_class.csv",
    "predictions.parquet",
    "metrics.json",
}
TRAINING = {"card.json", "training.json", "history.csv", "gradient_norms.csv", "environment.txt"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("clone"))
    made.change_params(**TINY)
    made.fill()
    made.commit("few candidates")
    return made


def made_anew(workspace: Workspace, name: str, seed: int) -> None:
    """Something new to train, in an experiment and a model of its own."""
    workspace.change_params(registry={"experiment": name, "model_name": name})
    path = workspace.root / "params.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"seeds": [seed]}, sort_keys=False))


def everything_arrived(uri: str, workspaces: list[Workspace], name: str) -> Any:
    """Each result on disk has one run with all its figures and files; returns the versions of the model."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    found = client.search_runs([experiment.experiment_id])
    by_bundle = {run.data.tags["recursight.bundle_digest"]: run for run in found}
    assert {run.info.status for run in found} == {"FINISHED"}
    assert len(by_bundle) == len(found), "one run of each training"
    made = [result for workspace in workspaces for result in results(Layout(workspace.root))]
    assert {result.digest for result in made} == set(by_bundle)
    for result in made:
        run = by_bundle[result.digest]
        assert run.data.params["seed"] == str(result.card["seed"])
        for split in ("validation", "test"):
            assert run.data.metrics[f"{split}_accuracy"] == result.metrics[split]["accuracy"]
        for epoch in result.history:
            points = client.get_metric_history(run.info.run_id, "epoch/validation_loss")
            assert [point.value for point in points if point.step == epoch["epoch"]] == [epoch["validation_loss"]]
        for folder, files in (("training", TRAINING), ("evaluation", EVALUATION)):
            there = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, folder)}
            assert files <= there
    assert client.get_model_version_by_alias(name, "champion")
    return client.search_model_versions(f"name = '{name}'")


def test_what_a_pipeline_made_while_the_server_was_away_arrives_with_the_next_one(
    workspace: Workspace, server: Server
) -> None:
    made_anew(workspace, "away", 1)
    workspace.environment["MLFLOW_TRACKING_URI"] = server.uri
    server.kill()
    output = workspace.run("recursight", "pipeline")
    assert "cannot be reached" in output
    assert "Traceback" not in output
    server.start()
    assert "Nothing has changed" in workspace.run("recursight", "pipeline")
    assert len(everything_arrived(server.uri, [workspace], "away")) == 1


def goes_well(workspace: Workspace, server: Server, name: str, *, fails: bool = False, delay: float = 0.0) -> None:
    """A pipeline behind a bad line; with the next one, on a good line, everything has arrived."""
    with door_to(server.port) as door:
        door.fails, door.delay_seconds = fails, delay
        workspace.environment["MLFLOW_TRACKING_URI"] = door.uri
        output = workspace.run("recursight", "pipeline", timeout_seconds=600)
        assert "Traceback" not in output
        door.fails, door.delay_seconds = False, 0.0
        workspace.run("recursight", "pipeline")
    assert len(everything_arrived(server.uri, [workspace], name)) == 1


@pytest.mark.chaos
def test_a_pipeline_goes_well_with_a_server_that_fails_half_of_its_calls(workspace: Workspace, server: Server) -> None:
    made_anew(workspace, "lossy", 2)
    goes_well(workspace, server, "lossy", fails=True)


@pytest.mark.chaos
def test_a_pipeline_goes_well_with_a_server_that_takes_two_seconds_an_answer(
    workspace: Workspace, server: Server
) -> None:
    made_anew(workspace, "slow", 3)
    goes_well(workspace, server, "slow", delay=SLOW_SECONDS)


@pytest.mark.chaos
def test_four_pipelines_of_four_clones_share_the_servers_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clones train the same, two something else; each winner gets one version, and one of them is champion."""
    clones = [Workspace(tmp_path / str(number)) for number in range(4)]
    for clone, seed in zip(clones, (1, 1, 2, 3), strict=True):
        clone.change_params(**TINY, retrain={"schedule": False})
        made_anew(clone, "shared", seed)
        clone.fill()
        clone.commit("few candidates")
    with running(clones[0]) as platform:
        settings = access.settings(Layout(clones[0].root))
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        for clone in clones[1:]:
            clone.environment |= settings
        with ThreadPoolExecutor(4) as pool:
            outputs = list(pool.map(lambda clone: clone.run("recursight", "pipeline", timeout_seconds=600), clones))
        for output in outputs:
            assert not re.search(r"Traceback|locked|is busy|cannot be reached", output), output
        body = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        assert len(platform.ask("prefect", "/api/flow_runs/filter", body)) == 4
        versions = everything_arrived(settings["MLFLOW_TRACKING_URI"], clones, "shared")
        digests = [version.tags["recursight.bundle_digest"] for version in versions]
        assert len(digests) == len(set(digests)) == 3
