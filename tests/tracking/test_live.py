"""A training is shown while it runs, and never held up."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from recursight.files import read_json, write_json
from recursight.layout import Layout
from recursight.params import load
from recursight.tracking import SyncResult, connect, live, sync
from recursight.tracking.connection import experiment_id
from recursight.tracking.pending import kept
from recursight.tracking.results import Result
from tests.projects import change_params
from tests.tracking.servers import door_to, free_port

TRAIN = Path(__file__).with_name("training_process.py")


def wait_for(condition: Callable[[], Any], timeout_seconds: float = 300) -> Any:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def arguments(layout: Layout, name: str = "gru") -> tuple[Any, ...]:
    """Of `live`: a training whose bundle is there already."""
    return layout, load(layout.params), read_json(layout.bundle(name, 0) / "card.json"), layout.bundle(name, 0)


def rows(layout: Layout, name: str = "gru") -> list[dict[str, float]]:
    return Result(layout.bundle(name, 0), None).history


def runs_of(layout: Layout) -> list[Any]:
    client = connect(layout)
    return list(client.search_runs([experiment_id(client, layout, load(layout.params).registry.experiment)]))


def steps(layout: Layout, run: Any) -> list[int]:
    points = connect(layout).get_metric_history(run.info.run_id, "epoch/train_loss")
    return sorted(point.step for point in points)


def test_a_short_training_has_its_run_when_it_ends(project):
    with live(*arguments(project), wait_seconds=300) as run:
        for row in rows(project):
            run.log_epoch(row)
    (found,) = runs_of(project)
    assert found.info.status == "FINISHED"
    assert steps(project, found) == [1, 2, 3]
    assert sync(project).trainings == ["elman"]


def test_a_deferred_one_is_left_to_the_next_sync(project):
    with live(*arguments(project), defer=True) as run:
        run.log_epoch(rows(project)[0])
    assert runs_of(project) == []
    assert sync(project).trainings == ["elman", "gru"]


def test_a_long_training_is_seen_while_it_runs_and_ends_in_the_same_run(project):
    first, *others = rows(project)
    with live(*arguments(project), live_after_seconds=0, wait_seconds=300) as run:
        run.log_epoch(first)
        (during,) = wait_for(lambda: [run for run in runs_of(project) if run.data.metrics])
        assert during.info.status == "RUNNING"
        assert during.data.metrics["epoch/train_loss"] == first["train_loss"]
        assert during.data.params["layer"] == "gru"
        for row in others:
            run.log_epoch(row)
    (after,) = runs_of(project)
    assert after.info.run_id == during.info.run_id
    assert after.info.status == "FINISHED"
    assert steps(project, after) == [1, 2, 3]
    assert after.data.metrics["parameters"] > 0


def test_a_run_shows_what_the_machine_did(project):
    first, second, _ = rows(project)
    with live(*arguments(project), wait_seconds=60) as run:
        run.log_epoch(first)
        wait_for(lambda: [run for run in runs_of(project) if run.data.metrics])
        run.log_epoch(second)
    (found,) = runs_of(project)
    assert 0 <= found.data.metrics["system/cpu_utilization_percentage"] <= 100
    assert found.data.metrics["system/system_memory_usage_megabytes"] > 0
    assert found.info.status == "FINISHED"


def test_a_resumed_run_goes_on_with_its_samples(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")

    def samples() -> list[int]:
        history = [
            connect(project).get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
            for run in runs_of(project)
        ]
        return [metric.step for metric in history[0]] if history else []

    with pytest.raises(ZeroDivisionError), live(*arguments(project), wait_seconds=60) as run:
        run.log_epoch(rows(project)[0])
        wait_for(lambda: len(samples()) > 3)
        raise ZeroDivisionError
    before = samples()
    with live(*arguments(project), wait_seconds=60) as run:
        run.log_epoch(rows(project)[1])
        wait_for(lambda: len(samples()) > len(before))
    assert samples() == list(range(len(samples())))


def test_system_metrics_can_be_turned_off(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    with live(*arguments(project), wait_seconds=60) as run:
        run.log_epoch(rows(project)[0])
    (found,) = runs_of(project)
    assert not any(key.startswith("system/") for key in found.data.metrics)


def test_the_same_training_again_makes_no_second_run(project):
    for _ in range(2):
        with live(*arguments(project), live_after_seconds=0, wait_seconds=300) as run:
            run.log_epoch(rows(project)[0])
    assert len(runs_of(project)) == 1


def fail(layout: Layout, row: dict[str, float]) -> None:
    """A training that breaks off after one epoch."""

    def train() -> None:
        with live(*arguments(layout), wait_seconds=300) as run:
            run.log_epoch(row)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()


def test_a_training_that_fails_leaves_a_failed_run_with_its_epochs(project):
    fail(project, rows(project)[0])
    (found,) = runs_of(project)
    assert found.info.status == "FAILED"
    assert steps(project, found) == [1]


def test_numbers_that_are_none_are_logged_too(project):
    fail(project, rows(project)[0] | {"train_loss": float("nan"), "gradient_norm": float("inf")})
    (found,) = runs_of(project)
    assert found.data.metrics["epoch/train_loss"] != found.data.metrics["epoch/train_loss"]


@contextmanager
def training(layout: Layout, epochs: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that logs some epochs and then trains until it is killed, at the latest at the end of the block."""
    command = [sys.executable, str(TRAIN), str(layout.root), str(epochs)]
    process = subprocess.Popen(command, cwd=layout.root, env=dict(os.environ))
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("by", "status"),
    [(signal.SIGKILL, "KILLED"), pytest.param(signal.SIGTERM, "KILLED", marks=pytest.mark.thorough)],
)
def test_a_killed_training_is_shown_as_killed_and_goes_on_in_its_run(project, by, status):
    with training(project, epochs=2) as process:
        wait_for(lambda: [run for run in runs_of(project) if steps(project, run) == [1, 2]])
        process.send_signal(by)
        process.wait(timeout=60)
    (killed,) = wait_for(lambda: [run for run in runs_of(project) if run.info.status == status])
    with live(*arguments(project), live_after_seconds=0, wait_seconds=300) as run:
        run.log_epoch(rows(project)[1])  # the kill came before this epoch's checkpoint
        run.log_epoch(rows(project)[2])
        assert wait_for(lambda: [run for run in runs_of(project) if steps(project, run) == [1, 2, 3]])
    (finished,) = runs_of(project)
    assert finished.info.run_id == killed.info.run_id
    assert finished.info.status == "FINISHED"
    assert steps(project, finished) == [1, 2, 3]


def test_a_recorder_that_is_killed_costs_nothing(project, capfd):
    with live(*arguments(project), live_after_seconds=0, wait_seconds=300) as run:
        run.log_epoch(rows(project)[0])
        assert run._recorder is not None
        run._recorder.kill()
        run._recorder.wait()
        run.log_epoch(rows(project)[1])
    assert "recursight track sync" in capfd.readouterr().err
    assert sync(project).trainings == ["elman", "gru"]
    assert len(runs_of(project)) == 2


def test_logging_waits_for_nobody(project):
    """With a recorder that never reads, ten thousand epochs overflow the pipe, and still take no time."""
    with live(*arguments(project), live_after_seconds=0, wait_seconds=300) as run:
        run.log_epoch(rows(project)[0])
        assert run._recorder is not None
        os.kill(run._recorder.pid, signal.SIGSTOP)
        started = time.thread_time()
        for _ in range(10_000):
            run.log_epoch(rows(project)[0])
        assert time.thread_time() - started < 5
        run._recorder.kill()


def test_training_goes_on_without_a_server_and_its_result_is_sent_later(project, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    started = time.monotonic()
    with live(*arguments(project), wait_seconds=30) as run:
        run.log_epoch(rows(project)[0])
    assert time.monotonic() - started < 90
    assert "cannot be reached" in capfd.readouterr().err
    assert len(kept(project)) == 1
    shutil.rmtree(project.artifacts / "candidates")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync(project) == SyncResult(["gru"])
    assert kept(project) == []


@pytest.mark.slow
def test_a_server_killed_in_the_middle_gets_everything_once_it_is_back(project, server, monkeypatch, capfd):
    change_params(project, "registry", experiment="killed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    first, *others = rows(project)
    with live(*arguments(project), live_after_seconds=0, wait_seconds=4) as run:
        run.log_epoch(first)
        (during,) = wait_for(lambda: [run for run in runs_of(project) if run.data.metrics])
        server.kill()
        for row in others:
            run.log_epoch(row)
        started = time.monotonic()
    assert time.monotonic() - started < 60
    assert "recursight track sync" in capfd.readouterr().err
    server.start()
    assert sync(project) == SyncResult(["elman", "gru"], ["elman", "gru"])
    after = {run.info.run_name: run for run in runs_of(project)}
    assert set(after) == {"elman", "gru"}
    assert after["gru"].info.run_id == during.info.run_id
    assert steps(project, after["gru"]) == [1, 2, 3]


@pytest.mark.slow
def test_a_slow_server_holds_nobody_up(project, server, monkeypatch, capfd):
    change_params(project, "registry", experiment="slow")
    with door_to(server.port) as door:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", door.uri)
        door.delay_seconds = 60
        started = time.monotonic()
        with live(*arguments(project), live_after_seconds=0, wait_seconds=4) as run:
            for row in rows(project):
                run.log_epoch(row)
            assert time.monotonic() - started < 50, "less than one answer takes"
        assert time.monotonic() - started < 59
        assert "recursight track sync" in capfd.readouterr().err
        door.delay_seconds = 0.05
        assert sync(project) == SyncResult(["elman", "gru"], ["elman", "gru"])
        assert {run.info.status for run in runs_of(project)} == {"FINISHED"}


def test_a_bundle_of_another_training_is_not_taken_for_this_ones(project):
    layout, params, card, bundle = arguments(project)
    with live(layout, params, card | {"training_digest": "2" * 64}, bundle, live_after_seconds=60) as run:
        run.log_epoch(rows(project)[0])
    assert runs_of(project) == []
    write_json(bundle / "card.json", card)
    assert sync(project).trainings == ["elman", "gru"]
