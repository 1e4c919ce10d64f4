"""A pipeline that is asked to stop is gone within seconds; everything says so, and the same command goes on."""

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
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from recursight.stages.reproduce import end_all, reproduce
from tests.platforms import TINY, until
from tests.workspace import Workspace

pytestmark = [pytest.mark.slow]

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


@pytest.mark.parametrize(
    ("sign", "status"),
    [
        pytest.param(signal.SIGINT, 130, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, id="SIGTERM", marks=pytest.mark.thorough),
    ],
)
def test_a_pipeline_stops_within_seconds_and_says_so_everywhere(
    workspace: Workspace, sign: signal.Signals, status: int
) -> None:
    """Ctrl-C at a real terminal, SIGTERM to the whole group, as `timeout` and systemd send it."""
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
    until(lambda: "RUNNING" in training_runs(workspace) or flow.poll() is not None)
    assert flow.poll() is None, b"".join(shown)
    started = psutil.Process(flow.pid).children(recursive=True)
    assert len(started) >= 4, "dvc, training, recorder, Prefect's server"
    if sign == signal.SIGINT:
        os.write(terminal, b"\x03")
    else:
        os.killpg(flow.pid, sign)
    assert flow.wait(MOST_SECONDS) == status, b"".join(shown)
    _, alive = psutil.wait_procs(started, timeout=MOST_SECONDS)
    assert not alive
    reader.join()
    os.close(terminal)
    assert set(training_runs(workspace)) == {"KILLED"}
    assert set(flow_runs(workspace)) == {"Cancelled"}
    assert list((workspace.root / ".recursight" / "checkpoints").rglob("*.safetensors")), "it can go on"
    assert list((workspace.root / ".recursight" / "flows").glob("*.json")) == []


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
    lines = reproduce(tmp_path, "deaf", timeout_seconds=60)
    until(lambda: next(lines) == "deaf")
    left = [process for process in psutil.Process().children(recursive=True) if process not in others]
    assert len(left) >= 3, "dvc, the shell, its sleep"
    threading.Thread(target=end_all, args=(0.5,)).start()
    _, alive = psutil.wait_procs([process for process in left if process.ppid() != os.getpid()], timeout=120)
    assert not alive
    with pytest.raises(RuntimeError):
        list(lines)
