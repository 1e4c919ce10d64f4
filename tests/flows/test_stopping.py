"""A pipeline that is asked to stop is gone within seconds; everything is marked so, and the same command goes on."""

import fcntl
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from recursight.executors.local import LocalExecutor
from tests.platforms import TINY, until
from tests.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MOST_SECONDS = 120.0  # seconds alone; a machine with other work takes its time
LONG: dict[str, Any] = {"epochs": 100_000, "learning_rate": 0.001, "patience": 0}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("stopping"))
    made.change_params(**TINY | {"train": LONG})
    made.fill()
    made.commit("a candidate that trains for hours")
    return made


def rows(database: Path, query: str) -> list[Any]:
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return list(connection.execute(query))
    except sqlite3.OperationalError:  # not there yet
        return []


def training_runs(workspace: Workspace) -> list[str]:
    return [status for (status,) in rows(workspace.root / "mlflow.db", "select status from runs")]


def flow_runs(workspace: Workspace) -> list[str]:
    query = "select state_name from flow_run union all select state_name from task_run where name like 'train%'"
    return [state for (state,) in rows(workspace.root.parent / "prefect" / "prefect.db", query)]


@contextmanager
def pipeline_at_a_terminal(workspace: Workspace) -> Iterator[tuple["subprocess.Popen[bytes]", int, list[bytes]]]:
    """A pipeline that trains: its process, the terminal, and what it shows there. Nothing of it stays at the end."""
    terminal, inside = pty.openpty()
    flow = subprocess.Popen(
        ["recursight", "pipeline"],
        cwd=workspace.root,
        env=workspace.environment,
        stdin=inside,
        stdout=inside,
        stderr=inside,
        preexec_fn=lambda: _take_terminal(inside),
    )
    os.close(inside)
    shown: list[bytes] = []
    reader = threading.Thread(target=_read, args=(terminal, shown), daemon=True)
    reader.start()
    try:
        until(lambda: "RUNNING" in training_runs(workspace) or flow.poll() is not None, seconds=400)
        assert flow.poll() is None, b"".join(shown)
        yield flow, terminal, shown
    finally:
        if flow.poll() is None:
            left = [psutil.Process(flow.pid), *psutil.Process(flow.pid).children(recursive=True)]
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            flow.wait()
        reader.join(60)
        os.close(terminal)


@pytest.mark.parametrize(
    ("sign", "status"),
    [
        pytest.param(signal.SIGINT, 130, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, id="SIGTERM", marks=pytest.mark.thorough),
    ],
)
def test_a_pipeline_stops_within_seconds_and_marks_it_everywhere(
    workspace: Workspace, sign: signal.Signals, status: int
) -> None:
    """Ctrl-C at a real terminal, SIGTERM to the whole group, as `timeout` and systemd send it."""
    with pipeline_at_a_terminal(workspace) as (flow, terminal, shown):
        started = psutil.Process(flow.pid).children(recursive=True)
        assert len(started) >= 4, "dvc, training, recorder, Prefect's server"
        if sign == signal.SIGINT:
            others_are_refused(workspace, flow.pid)
        began = time.monotonic()
        if sign == signal.SIGINT:
            os.write(terminal, b"\x03")
        else:
            os.killpg(flow.pid, sign)
        assert flow.wait(60) == status, b"".join(shown)
        _, alive = psutil.wait_procs(started, timeout=60)
        assert not alive
        assert time.monotonic() - began < MOST_SECONDS
    assert set(training_runs(workspace)) == {"KILLED"}
    assert set(flow_runs(workspace)) == {"Cancelled"}
    assert list((workspace.root / ".recursight" / "checkpoints").rglob("*.safetensors")), "it can go on"
    assert list((workspace.root / ".recursight" / "flows").glob("*.json")) == []


def others_are_refused(workspace: Workspace, first: int) -> None:
    """A second pipeline, and a stage that the flow did not start, each with one sentence that names the flow."""
    named = f"recursight: this project is in use: process {first} (`recursight pipeline`), at work since "
    for command in (("pipeline",), ("retrain",), ("evaluate", "elman")):
        output = workspace.run("recursight", *command, status=2)
        assert named in output
        assert len([line for line in output.splitlines() if line.startswith("recursight: ")]) == 1
        assert "Traceback" not in output
        assert "rwlock" not in output
    assert f"process {first} (`recursight pipeline`), at work since " in workspace.run("dvc", "repro", status=255)


def _read(terminal: int, shown: list[bytes]) -> None:
    """Until the last process has closed its side; a full terminal would hold the pipeline up."""
    with suppress(OSError):
        while text := os.read(terminal, 65536):
            shown.append(text)


def _take_terminal(inside: int) -> None:
    os.setsid()
    fcntl.ioctl(inside, termios.TIOCSCTTY, 0)


def test_a_stage_that_is_deaf_to_sigterm_is_made_to_end(tmp_path: Path) -> None:
    deaf = "trap '' TERM; echo deaf; sleep 100 & wait; sleep 100"
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"deaf": {"cmd": deaf}}}))
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    others = psutil.Process().children(recursive=True)  # servers of other tests
    executor = LocalExecutor()
    lines = executor.run(tmp_path, "deaf", timeout_seconds=60)
    until(lambda: next(lines) == "deaf")
    left = [process for process in psutil.Process().children(recursive=True) if process not in others]
    assert len(left) >= 3, "dvc, the shell, its sleep"
    threading.Thread(target=executor.end_all, args=(0.5,)).start()
    _, alive = psutil.wait_procs([process for process in left if process.ppid() != os.getpid()], timeout=120)
    assert not alive
    with pytest.raises(RuntimeError):
        list(lines)
