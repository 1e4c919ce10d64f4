"""`recursight doctor` on what is really broken: each finding with a command that exists, and that fixes it."""

import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer.main

from recursight import access
from recursight.cli import app
from recursight.layout import Layout
from recursight.operations import cleanup
from recursight.operations.doctor import Finding, project, services, software
from recursight.processes import ProcessIdentity
from tests.tracking.servers import free_port
from tests.workspace import Workspace

TINY: dict[str, Any] = {
    "train": {"epochs": 2000, "learning_rate": 0.01, "patience": 0},
    "evaluate": {"mistakes": 4},
    "registry": {"minimums": {"accuracy": 0.05, "worst_class_recall": 0.0}},
    "compare": {"bootstrap_samples": 100},
    "retrain": {"schedule": False},
    "candidates": {"elman": {"layer": "elman", "hidden": 16}},
}
LIMIT_SECONDS = 300.0  # a busy machine takes its time


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


def to_fix(findings: list[Finding]) -> dict[str, tuple[str, ...]]:
    return {finding.area: finding.commands for finding in findings if finding.state == "fix"}


def exists(command: str, workspace: Workspace) -> bool:
    """Whether a shell would find the program, and recursight or make the command."""
    words = [word for word in shlex.split(command.replace("${EDITOR:-vi}", "cat")) if "=" not in word]
    if words[0] == "unset":
        return True
    if words[0] == "recursight":
        return words[1] in typer.main.get_command(app).commands  # type: ignore[attr-defined]
    if words[0] == "make":
        return re.search(rf"^{words[1]}:", (workspace.root / "Makefile").read_text(), re.MULTILINE) is not None
    return shutil.which(words[0], path=workspace.environment["PATH"]) is not None


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "params.yaml").write_text("candidates: {gru: {layer: gru}}\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return Layout(tmp_path)


def test_every_fault_of_params_is_reported(layout: Layout) -> None:
    assert [finding.state for finding in project.params(layout)] == ["ok"]
    layout.params.write_text("candidates: {gru: {layr: gru}}\n")
    found = list(project.params(layout))
    assert {finding.state for finding in found} == {"fix"}
    assert any("did you mean 'layer'?" in finding.what for finding in found)
    layout.params.write_bytes(b"\xff\xfe\x00")
    assert [finding.state for finding in project.params(layout)] == ["fix"]


def test_packages_outside_their_bounds_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An older package lies first on the path, as a broken environment has it."""
    metadata = tmp_path / "fastapi-0.200.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: fastapi\nVersion: 0.200.0\n")
    assert to_fix(list(software.versions(None))) == {}
    monkeypatch.syspath_prepend(str(tmp_path))
    (finding,) = [found for found in software.versions(None) if found.state == "fix"]
    assert "fastapi 0.200.0 (needs <0.151,>=0.139)" in finding.what
    assert "pip install -r requirements.lock" in finding.commands[0]


def test_drift_from_the_lock_is_named(layout: Layout) -> None:
    (layout.root / "requirements.lock").write_text("numpy==1.0.0 \\\n    --hash=sha256:00\nnot-installed-here==1.0\n")
    (finding,) = [found for found in software.versions(layout) if found.state == "fix"]
    assert re.search(r"numpy \S+ \(pinned ==1.0.0\)$", finding.what)


def test_a_full_disk_is_reported(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    assert to_fix(list(project.disk(layout))) == {}
    monkeypatch.setattr(project, "LEAST_FREE_BYTES", 2**60)
    assert to_fix(list(project.disk(layout))) == {"disk": ("dvc gc --workspace",)}


class Deaf(BaseHTTPRequestHandler):
    """A server that takes requests and never answers."""

    def do_GET(self) -> None:
        self.server.closing.wait()  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None: ...


class Refusing(Deaf):
    """A server that is healthy, and knows no login."""

    def do_GET(self) -> None:
        self.send_response(200 if "health" in self.path else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def served(layout: Layout, request: pytest.FixtureRequest) -> Iterator[Layout]:
    """A project whose Prefect server is this process."""
    with ThreadingHTTPServer(("127.0.0.1", 0), request.param) as server:
        server.closing = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        access.register(layout, "prefect", access.Running(ProcessIdentity.of(), url))
        access.write_secret(access.folder(layout) / "logins.json", '{"prefect": "u:p", "mlflow": "u:p"}')
        yield layout
        server.closing.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("served", "why"), [(Deaf, "no answer"), (Refusing, "login: HTTP 401")], indirect=["served"])
def test_a_server_that_hangs_or_refuses_is_reported(served: Layout, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "TIMEOUT_SECONDS", 0.5)
    (finding,) = [found for found in services.servers(served) if found.state == "fix"]
    assert why in finding.what
    assert finding.commands == ("recursight down", "recursight up")


def test_a_dead_server_and_a_readable_password_are_reported(layout: Layout) -> None:
    earlier = replace(ProcessIdentity.of(), started=1.0)
    access.register(layout, "mlflow", access.Running(earlier, "http://127.0.0.1:1"))
    assert to_fix(list(services.servers(layout))) == {"mlflow": ("recursight up",)}
    logins = access.folder(layout) / "logins.json"
    logins.write_text('{"prefect": "u:p", "mlflow": "u:p"}')
    logins.chmod(0o644)
    (command,) = to_fix(list(services.logins(layout)))["logins"]
    subprocess.run(command, shell=True, cwd=layout.root, check=True)
    assert to_fix(list(services.logins(layout))) == {}
    logins.write_text("{")
    assert access.settings(layout) == {}
    assert list(to_fix(list(services.logins(layout)))) == ["logins"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("doctor"))
    made.change_params(**TINY)
    made.commit("one candidate")
    return made


def examined(workspace: Workspace, *options: str, status: int) -> list[Finding]:
    output = workspace.run("recursight", "doctor", "--json", *options, status=status)
    listed = json.loads(output[output.index("[\n") :])
    found = [Finding(**{**finding, "commands": tuple(finding["commands"])}) for finding in listed]
    for finding in found:
        assert all(exists(command, workspace) for command in finding.commands), finding
    return found


HALF_WRITTEN = """
import os, signal
from pathlib import Path
from recursight.files import replacing
begun = replacing(Path("artifacts/metrics/gru.json"))
begun.__enter__().write_text("{")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_fresh_clone_is_told_to_pull(workspace: Workspace) -> None:
    found = examined(workspace, status=1)
    assert to_fix(found) == {"data": ("dvc pull data.dvc",)}
    workspace.run(*to_fix(found)["data"][0].split())
    workspace.run("python", "-c", HALF_WRITTEN, status=-signal.SIGKILL)
    found = examined(workspace, "--fix", status=0)
    assert not list((workspace.root / "artifacts" / "metrics").glob(".gru.json.*"))
    assert {"python", "packages", "device", "params", "git", "data", "stages", "disk", "leftovers"} <= {
        finding.area for finding in found
    }
    assert "recursight pipeline" in [command for finding in found for command in finding.commands]


@pytest.mark.slow
def test_nothing_that_is_broken_stops_it(tmp_path: Path) -> None:
    broken = Workspace(tmp_path)
    (broken.root / "params.yaml").write_text("candidates: [")
    (broken.root / ".git").rename(tmp_path / "git")
    (broken.root / "mlflow.db").write_text("no database " * 100)
    logins = broken.root / ".recursight" / "servers" / "logins.json"
    logins.parent.mkdir(parents=True)
    logins.write_text("{")
    found = examined(broken, status=1)
    assert set(to_fix(found)) == {"params", "data", "remote", "logins", "mlflow"}
    assert "git init" in to_fix(found)["remote"]
    broken.environment["COLUMNS"] = "80"
    text = broken.run("recursight", "doctor", status=1)
    assert "Traceback" not in text
    assert "\x1b[" not in text
    assert all(len(line) <= 80 or line.lstrip().startswith(("$ ", "/")) for line in text.splitlines())
    (tmp_path / "elsewhere").mkdir()
    broken.root = tmp_path / "elsewhere"
    assert "change into a project" in broken.run("recursight", "doctor", status=1)


def killed_in_training(workspace: Workspace) -> int:
    """A pipeline at a terminal is killed while it trains; its process number."""
    output = (workspace.root.parent / "output").open("w")
    with output:
        flow = subprocess.Popen(
            ["recursight", "pipeline"], cwd=workspace.root, env=workspace.environment, stdout=output, stderr=output
        )
    try:
        until(lambda: list(workspace.root.glob(".recursight/checkpoints/elman/*.safetensors")))
    finally:
        flow.kill()
        flow.wait()
    return flow.pid


def states(workspace: Workspace) -> list[str]:
    """Of all flow runs in the temporary server's database, the oldest first."""
    database = Path(workspace.environment["PREFECT_HOME"]) / "prefect.db"
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT state_type FROM flow_run ORDER BY created").fetchall()
        unfinished = connection.execute("SELECT count(*) FROM task_run WHERE state_type = 'RUNNING'").fetchone()
    connection.close()
    assert "RUNNING" in [state for (state,) in rows] or unfinished == (0,)
    return [state for (state,) in rows]


def descendants(workspace: Workspace, owner: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RECURSIGHT_FLOW_PROCESS", "").split(":")[1:2] == [str(owner)]:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_pipeline_is_found_by_doctor_and_cleared_away_by_the_next_one(workspace: Workspace) -> None:
    workspace.fill()
    killed = killed_in_training(workspace)
    assert states(workspace) == ["RUNNING"]
    found = [finding for finding in examined(workspace, status=1) if finding.area == "leftovers"]
    assert {finding.commands for finding in found} == {("recursight doctor --fix",)}
    assert any(f"process {killed}" in finding.what for finding in found)
    workspace.change_params(train={"epochs": 2})
    workspace.run("recursight", "pipeline")
    assert states(workspace) == ["CRASHED", "COMPLETED"]
    assert descendants(workspace, killed) == []
    assert cleanup.on_this_machine(Layout(workspace.root), clear=False) == []


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.timeout(1800)
def test_a_killed_pipeline_is_cleared_away_by_doctor(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.change_params(**TINY)
    workspace.fill()
    killed = killed_in_training(workspace)
    workspace.run("recursight", "doctor", "--fix")
    assert descendants(workspace, killed) == []
    assert states(workspace) == ["CRASHED"]
    assert "killed processes left nothing" in [finding.what for finding in examined(workspace, status=0)]


# A run as a worker leaves it that is killed between taking it and starting its process.
TAKEN = """
from recursight import access
from recursight.layout import Layout
from recursight.operations.prefect_api import PrefectApi
access.enter(Layout.find())
prefect = PrefectApi.configured()
deployment = prefect.ask("/deployments/name/pipeline/local", method="GET")["id"]
run = prefect.ask(f"/deployments/{deployment}/create_flow_run", {"state": {"type": "PENDING"}})
print(run["state"]["type"])
"""


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.timeout(1800)
def test_what_a_killed_worker_and_its_flow_leave_blocks_nothing_afterwards(tmp_path: Path) -> None:
    """The deployment runs once at a time: its slot comes free with the run that is ended."""
    workspace = Workspace(tmp_path)
    workspace.environment |= {"PREFECT_WORKER_QUERY_SECONDS": "2"}
    workspace.change_params(**TINY)
    workspace.fill()
    ports = [f"--prefect-port={free_port()}", f"--mlflow-port={free_port()}"]
    workspace.run("recursight", "up", *ports)
    try:
        run = workspace.run("prefect", "deployment", "run", "pipeline/local")
        until(lambda: list(workspace.root.glob(".recursight/checkpoints/elman/*.safetensors")))
        (flow,) = workspace.root.glob(".recursight/flows/*.json")
        worker = json.loads((workspace.root / ".recursight" / "servers" / "worker.json").read_text())
        for pid in (worker["pid"], json.loads(flow.read_text())["pid"]):
            os.kill(pid, signal.SIGKILL)
        found = examined(workspace, status=1)
        assert to_fix(found)["worker"] == ("recursight up",)
        found_left = [finding.what for finding in found if finding.area == "leftovers"]
        assert any(what.startswith("flow runs are shown as running but are not: ") for what in found_left), found_left
        fixed = workspace.run("recursight", "doctor", "--fix", status=1)  # the worker is still to fix
        assert "removed: flow run" in fixed, run
        assert workspace.run("python", "-c", TAKEN).strip() == "PENDING"
        assert "removed: flow run" in workspace.run("recursight", "doctor", "--fix", status=1)
        workspace.change_params(train={"epochs": 2})
        workspace.run(*to_fix(found)["worker"][0].split())
        assert to_fix(examined(workspace, status=0)) == {}
        output = workspace.run("prefect", "deployment", "run", "pipeline/local", "--watch")
        assert "Completed" in output
        mlflow = json.loads((workspace.root / ".recursight" / "servers" / "mlflow.json").read_text())["pid"]
        group = [psutil.Process(mlflow), *psutil.Process(mlflow).children(recursive=True)]
        for process in group:
            process.suspend()
        started = time.monotonic()
        hanging = examined(workspace, status=1)
        assert time.monotonic() - started < LIMIT_SECONDS / 2
        assert to_fix(hanging) == {"mlflow": ("recursight down", "recursight up")}
    finally:
        workspace.run("recursight", "down")
