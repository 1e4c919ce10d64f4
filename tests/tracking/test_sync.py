"""The tracking store is completed from the files on disk, once."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from recursight.files import read_json, write_json
from recursight.layout import Layout
from recursight.processes import ProcessIdentity
from recursight.tracking import SyncResult, Unreachable, attempt_sync, connect, runs, sync
from recursight.tracking.connection import experiment_id
from recursight.tracking.pending import kept
from recursight.tracking.results import results
from tests.projects import change_params
from tests.tracking.servers import door_to, free_port


def runs_of(layout: Layout) -> dict:
    """Every run by its name."""
    client = connect(layout)
    found = list(client.search_runs([experiment_id(client, layout, "recursight")]))
    by_name = {run.info.run_name: run for run in found}
    assert len(by_name) == len(found), "one run per training"
    return by_name


def steps(client, run_id: str, key: str) -> list[int]:
    return sorted(point.step for point in client.get_metric_history(run_id, key))


def artifacts_of(layout: Layout, run) -> set[str]:
    client = connect(layout)
    return {
        file.path for folder in ("training", "evaluation") for file in client.list_artifacts(run.info.run_id, folder)
    }


def test_everything_that_is_known_of_a_training_is_on_its_run(project):
    assert sync(project) == SyncResult(["elman", "gru"], ["elman", "gru"])
    run = runs_of(project)["gru"]
    card, metrics = (
        read_json(project.bundle("gru", 0) / "card.json"),
        read_json(project.evaluation_of("gru", 0) / "metrics.json"),
    )
    assert run.info.status == "FINISHED"
    assert run.data.params["layer"] == "gru"
    assert run.data.params["hidden"] == "[16]"
    assert run.data.params["train.learning_rate"] == "0.01"
    assert run.data.params["train.augment.flip"] == "False"
    assert run.data.tags["candidate"] == "gru"
    assert run.data.tags["seed"] == "0"
    assert card["data_digest"].startswith(run.data.tags["data"])
    assert run.data.tags["recursight.data_md5"] == "0123456789abcdef0123456789abcdef.dir"
    assert {item.dataset.digest for item in run.inputs.dataset_inputs} == {
        "0123456789abcdef0123456789abcdef.dir",
        card["data_digest"][:36],
    }
    for split in ("validation", "test"):
        for score in ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss"):
            assert run.data.metrics[f"{split}_{score}"] == metrics[split][score]
    assert run.data.metrics["latency_ms"] == metrics["latency_ms"]
    assert run.data.metrics["parameters"] == card["parameters"]
    assert {"evaluation/confusion.svg", "evaluation/reliability.svg", "evaluation/mistakes.svg"} <= artifacts_of(
        project, run
    )
    assert {"training/card.json", "training/environment.txt", "training/history.csv"} <= artifacts_of(project, run)


def test_curves_have_a_point_per_epoch_and_gradients_one_per_time_step(project):
    sync(project)
    client, run = connect(project), runs_of(project)["gru"]
    assert steps(client, run.info.run_id, "epoch/validation_loss") == [1, 2, 3]
    assert steps(client, run.info.run_id, "gradient_norms/layer_0_h") == list(range(8))
    losses = client.get_metric_history(run.info.run_id, "epoch/validation_loss")
    at = {point.step: point.timestamp for point in losses}
    assert at[1] <= at[2] <= at[3] == run.info.end_time


def test_what_is_there_is_not_sent_again(project):
    sync(project)
    before = runs_of(project)
    assert sync(project) == SyncResult(unchanged=2)
    after = runs_of(project)
    assert {name: run.info.run_id for name, run in before.items()} == {
        name: run.info.run_id for name, run in after.items()
    }
    assert len(connect(project).get_metric_history(after["gru"].info.run_id, "test_accuracy")) == 1


def test_an_evaluation_lands_on_the_run_of_its_training(project):
    evaluations = project.root / "aside"
    shutil.move(project.artifacts / "evaluations", evaluations)
    assert sync(project) == SyncResult(["elman", "gru"])
    run_id = runs_of(project)["gru"].info.run_id
    shutil.move(evaluations, project.artifacts / "evaluations")
    assert sync(project) == SyncResult([], ["elman", "gru"])
    run = runs_of(project)["gru"]
    assert run.info.run_id == run_id
    assert "test_accuracy" in run.data.metrics


def test_an_evaluation_of_other_weights_is_left_out(project):
    path = project.evaluation_of("gru", 0) / "metrics.json"
    write_json(path, read_json(path) | {"bundle_digest": "other"})
    assert sync(project).evaluations == ["elman"]
    assert "test_accuracy" not in runs_of(project)["gru"].data.metrics


def test_reused_results_are_logged_where_the_store_has_never_seen_them(project, tmp_path, monkeypatch):
    sync(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    assert sync(project).trainings == ["elman", "gru"]
    assert set(runs_of(project)) == {"elman", "gru"}


def test_several_seeds_are_told_apart_by_name_and_grouped_by_tag(project):
    content = read_json(project.bundle("gru", 0) / "card.json")
    shutil.copytree(project.bundle("gru", 0), project.bundle("gru", 1))
    write_json(project.bundle("gru", 1) / "card.json", content | {"seed": 1, "training_digest": "1" * 64})
    project.params.write_text(project.params.read_text() + "seeds: [0, 1]\n")
    sync(project)
    found = runs_of(project)
    assert set(found) == {"elman-seed-0", "gru-seed-0", "gru-seed-1"}
    assert {run.data.tags["candidate"] for run in found.values()} == {"elman", "gru"}


def test_a_run_that_was_cut_off_is_continued_without_doubling_its_epochs(project):
    client = connect(project)
    experiment = experiment_id(client, project, "recursight")
    result = next(result for result in results(project) if result.card["candidate"] == "gru")
    gone = {runs.PROCESS: "elsewhere:1:0.00", runs.ROOT: str(project.root)}
    tags = runs.tags_of(result.card, None) | gone
    run_id = client.create_run(experiment, tags=tags, run_name="gru").info.run_id
    client.log_metric(run_id, "epoch/validation_loss", result.history[0]["validation_loss"], step=1)
    sync(project)
    run = runs_of(project)["gru"]
    assert run.info.run_id == run_id
    assert run.info.status == "FINISHED"
    assert steps(client, run_id, "epoch/validation_loss") == [1, 2, 3]


def test_a_sync_that_was_killed_in_the_middle_is_completed(project):
    sync(project)
    client, run = connect(project), runs_of(project)["gru"]
    client.delete_tag(run.info.run_id, runs.EVALUATION)  # as before its last step
    client.update_run(run.info.run_id, status="RUNNING")
    assert sync(project) == SyncResult(["gru"], ["gru"], unchanged=1)
    again = runs_of(project)["gru"]
    assert again.info.run_id == run.info.run_id
    assert again.info.status == "FINISHED"
    assert steps(client, run.info.run_id, "gradient_norms/layer_0_h") == list(range(8))


def test_runs_whose_creation_was_never_answered_are_no_second_runs(project):
    client = connect(project)
    experiment = experiment_id(client, project, "recursight")
    result = next(result for result in results(project) if result.card["candidate"] == "gru")
    tags = runs.tags_of(result.card, None) | runs.owner_tags(project.root)
    for _ in range(3):
        client.create_run(experiment, tags=tags, run_name="gru")
    sync(project)
    assert runs_of(project)["gru"].info.status == "FINISHED"


def test_two_at_once_make_one_run_of_each_training(project):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=sync, args=(project,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0, 0]
    assert set(runs_of(project)) == {"elman", "gru"}


def test_a_run_is_ended_when_its_process_is_gone_and_only_then(project):
    client = connect(project)
    experiment = experiment_id(client, project, "recursight")
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    def run_of(process: ProcessIdentity) -> str:
        return str(client.create_run(experiment, tags={runs.PROCESS: str(process)}).info.run_id)

    live = run_of(ProcessIdentity.of(sleeper.pid))
    own = ProcessIdentity.of()
    earlier = replace(own, started=own.started - 60)  # this pid, but of an earlier process
    dead, far = run_of(earlier), run_of(replace(earlier, host="elsewhere"))

    assert runs.end_leftovers(client, experiment) == [dead]
    sleeper.kill()
    psutil.wait_procs([psutil.Process(sleeper.pid)], timeout=1)  # a zombie now: its parent has not asked for it
    assert runs.end_leftovers(client, experiment) == [live]
    sleeper.communicate()
    assert client.get_run(dead).info.status == client.get_run(live).info.status == "KILLED"
    assert client.get_run(far).info.status == "RUNNING"


def test_results_made_while_the_store_is_down_outlive_being_overwritten(project, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    assert attempt_sync(project) is None
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "cannot be reached" in said
    assert "recursight track sync" in said
    shutil.rmtree(project.candidate("gru"))  # as `dvc repro` does for other parameters
    shutil.rmtree(project.evaluation("gru"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync(project) == SyncResult(["elman", "gru"], ["elman", "gru"])
    assert "test_accuracy" in runs_of(project)["gru"].data.metrics
    assert kept(project) == []


def test_other_experiments_are_params_business(project):
    change_params(project, "registry", experiment="digits")
    sync(project)
    client = connect(project)
    assert client.get_experiment_by_name("digits") is not None
    assert client.get_experiment_by_name("recursight") is None


def test_a_stage_works_on_with_a_store_that_is_out_of_order(project):
    (project.root / "mlflow.db").write_text("this is no database" * 100)
    with pytest.raises(Unreachable, match="nothing is lost"):
        sync(project)
    assert len(kept(project)) == 2


@pytest.mark.slow
def test_a_server_that_loses_half_of_its_calls_gets_all_of_it_once(project, server, monkeypatch):
    change_params(project, "registry", experiment="lossy")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0.1")
    with door_to(server.port) as door:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", door.uri)
        door.fails = True
        sync(project)
        door.fails = False
        assert sync(project) == SyncResult(unchanged=2)
        client = connect(project)
        found = client.search_runs([experiment_id(client, project, "lossy")])
    assert sorted(run.info.run_name for run in found) == ["elman", "gru"]
    assert {run.info.status for run in found} == {"FINISHED"}
    for run in found:
        assert door.passed > 40
        assert len(run.data.params) > 20


def test_the_outcome_is_json_for_scripts(project):
    command = [sys.executable, "-c", "from recursight.cli import main; main()", "track", "sync", "--json"]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert json.loads(done.stdout) == {
        "trainings": ["elman", "gru"],
        "evaluations": ["elman", "gru"],
        "unchanged": 0,
        "ended": 0,
    }
