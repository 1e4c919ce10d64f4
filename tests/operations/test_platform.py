"""`recursight up` and `down` for real: two servers, a worker, a schedule that fires, an event that starts a run."""

import gzip
import json
import os
import re
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import yaml

from recursight.layout import Layout
from tests.monitoring.log import log_negatives
from tests.platforms import QUICK, TINY, Platform, running, until
from tests.tracking.servers import free_port
from tests.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SOON = "* * * * * */20"  # a sixth field: seconds
NEVER = "0 4 29 2 *"  # on leap days
BUSY_SECONDS = 120.0  # seconds alone; a machine with other work takes its time


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    workspace = Workspace(tmp_path_factory.mktemp("platform"))
    workspace.environment |= QUICK
    workspace.change_params(**TINY, retrain={"cron": SOON})
    workspace.fill()
    workspace.commit("few candidates")
    with running(workspace) as made:
        yield made


def test_the_schedule_fires_and_the_first_retraining_makes_a_champion(platform: Platform) -> None:
    (run,) = until(lambda: [run for run in platform.retrainings() if run["state_type"] == "COMPLETED"][-1:])
    assert run["auto_scheduled"]
    assert run["state_name"] == "Retrained"
    assert "version 1 " in run["state"]["message"]
    platform.workspace.change_params(retrain={"schedule": False}, monitor={"schedule": True, "cron": NEVER})
    assert "applied the deployments of prefect.yaml" in platform.up()
    platform.rest()
    states = [run["state_name"] for run in platform.retrainings()]
    assert set(states) <= {"Retrained", "Unchanged"}
    assert states.count("Retrained") == 1
    planned = {"flows": {"name": {"any_": ["retrain"]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    assert platform.ask("prefect", "/api/flow_runs/filter", planned) == []
    found = platform.ask("prefect", "/api/deployments/filter", {"flows": {"name": {"any_": ["monitor", "retrain"]}}})
    schedules = [(one["schedule"]["cron"], one["active"]) for each in found for one in each["schedules"]]
    assert sorted(schedules) == sorted([(SOON, False), (NEVER, True)])


def test_addresses_are_printed_and_secrets_are_not(platform: Platform) -> None:
    for name, port in platform.ports.items():
        assert f"{name:<8} http://127.0.0.1:{port}" in platform.output
        assert platform.logins[name].partition(":")[2] not in platform.output
    assert platform.logins["prefect"] != platform.logins["mlflow"]
    for path in ("prefect.toml", ".recursight/servers/logins.json"):
        assert stat.S_IMODE((platform.workspace.root / path).stat().st_mode) == 0o600
        assert platform.workspace.run("git", "check-ignore", path)


def test_up_again_starts_nothing(platform: Platform) -> None:
    before = {name: platform.process(name).pid for name in ("prefect", "mlflow", "worker")}
    assert platform.up().count("already running") == 3
    assert {name: platform.process(name).pid for name in before} == before


def test_without_credentials_neither_server_answers_anything_but_health(platform: Platform) -> None:
    paths = {
        "prefect": ["/", "/api/flows/filter", "/api/admin/version", "/ui-settings", "/docs", "/openapi.json"],
        "mlflow": ["/", "/api/2.0/mlflow/experiments/search?max_results=1", "/version", "/graphql"],
    }
    for name in paths:
        for path in paths[name]:
            for login in (None, "recursight:wrong", platform.logins["mlflow" if name == "prefect" else "prefect"]):
                assert platform.ask(name, path, login=login) == 401, path
        assert "<html" in platform.ask(name, "/").lower()
        health = "/api/health" if name == "prefect" else "/health"
        assert platform.ask(name, health, login=None) in ("true", "OK")
        assert isinstance(platform.ask(name, paths[name][1], {} if name == "prefect" else None), list | dict)


def test_foreign_hosts_and_origins_are_refused(platform: Platform) -> None:
    for name, health in (("prefect", "/api/health"), ("mlflow", "/health")):
        assert platform.ask(name, health, Host="evil.example") == 403
        assert platform.ask(name, health, Origin="http://evil.example") == 403
        own = f"http://127.0.0.1:{platform.ports[name]}"
        assert platform.ask(name, health, Origin=own) in ("true", "OK")


def test_everything_listens_on_loopback_only(platform: Platform) -> None:
    addresses = [
        connection.laddr.ip
        for process in platform.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(addresses) >= 2
    assert set(addresses) == {"127.0.0.1"}


def test_from_another_shell_an_unchanged_project_is_said_to_be_unchanged(platform: Platform) -> None:
    versions = registered(platform)
    output = platform.workspace.run("prefect", "deployment", "run", "retrain/scheduled", "--watch")
    assert "Unchanged" in output
    assert registered(platform) == versions
    artifacts = platform.ask("prefect", "/api/artifacts/latest/filter", {"sort": "CREATED_DESC", "limit": 50})
    (record,) = [artifact["data"] for artifact in artifacts if artifact["key"] == "retraining"]
    md5 = yaml.safe_load((platform.workspace.root / "data.dvc").read_text())["outs"][0]["md5"]
    commit = platform.workspace.run("git", "rev-parse", "HEAD").strip()
    assert "| outcome | unchanged |" in record
    assert f"| data | {md5} |" in record
    assert f"| git_commit | {commit}" in record
    assert re.search(r"\| params \| [0-9a-f]{64} \|", record)


def test_drift_starts_a_retraining_that_says_why(platform: Platform) -> None:
    platform.workspace.change_params(monitor={"minimum_rows": 100})
    log_negatives(Layout(platform.workspace.root))
    before = len(platform.retrainings())
    assert "Drifted" in platform.workspace.run("prefect", "deployment", "run", "monitor/scheduled", "--watch")
    (checked,) = platform.ask("prefect", "/api/flow_runs/filter", {"flows": {"name": {"any_": ["monitor"]}}})
    told = checked["state"]["message"]
    assert "differ from its reference in" in told
    until(lambda: len(platform.retrainings()) > before)
    until(lambda: platform.retrainings()[0]["state_type"] == "COMPLETED")
    run = platform.retrainings()[0]
    assert run["created_by"]["type"] == "AUTOMATION"
    assert run["state_name"] == "Unchanged"  # the same data gives the same model
    assert f"asked for by drift: {told}" in run["state"]["message"]
    artifacts = platform.ask("prefect", "/api/artifacts/latest/filter", {"sort": "CREATED_DESC", "limit": 50})
    data = {artifact["key"]: artifact["data"] for artifact in artifacts}
    assert data["drift"].startswith("# Drift\n")
    assert "| brightness | **yes** |" in data["drift"]
    assert f"| asked for by drift | {told} |" in data["retraining"]


def test_an_event_starts_a_retraining_that_pins_new_files_in_data_and_trains_on_them(platform: Platform) -> None:
    root = platform.workspace.root
    path = root / "data" / "images-idx3-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:16] + bytes(255 - pixel for pixel in content[16:])))  # in negative
    versions, before = registered(platform), len(platform.retrainings())
    script = (
        "from recursight.layout import Layout; from recursight.operations.events import data_changed; "
        "print(data_changed(Layout.find()))"
    )
    assert platform.workspace.run("python", "-c", script).strip().endswith("True")
    until(lambda: len(platform.retrainings()) > before)
    until(lambda: platform.retrainings()[0]["state_type"] == "COMPLETED")
    run = platform.retrainings()[0]
    assert run["created_by"]["type"] == "AUTOMATION"
    assert run["state_name"] == "Retrained"
    assert "data/ has new files" in run["state"]["message"]
    assert "data.dvc" in platform.workspace.run("git", "status", "--porcelain")
    assert registered(platform) == versions + 1
    assert platform.workspace.run("dvc", "status", "data.dvc").strip().endswith("up to date.")


def registered(platform: Platform) -> int:
    """How many versions the model has, by MLflow's server."""
    answer = platform.ask("mlflow", "/api/2.0/mlflow/model-versions/search?max_results=100")
    return len(answer.get("model_versions", []))


class Hook(BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    said: list[str] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.said.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


def test_a_failure_a_promotion_and_drift_are_told(platform: Platform) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/hook"
            for _ in range(2):  # done again, it replaces
                platform.workspace.run("recursight", "notify", url)
            promotion = {
                "id": "00000000-0000-4000-8000-000000000000",
                "event": "model.promoted",
                "occurred": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
                "resource": {"prefect.resource.id": "recursight.model.digits"},
                "payload": {"model": "digits", "version": 3, "candidate": "gru", "reason": "it is better."},
            }
            platform.ask("prefect", "/api/events", [promotion])
            drift = (
                "from recursight.operations.events import model_drifted; "
                "payload = {'version': 3, 'sentence': 'it is dark.'}; "
                "print(model_drifted('digits', False, payload))"
            )
            assert platform.workspace.run("python", "-c", drift).strip().endswith("True")
            text = (platform.workspace.root / "params.yaml").read_text()
            (platform.workspace.root / "params.yaml").write_text(text.replace("layer: elman", "layer: elmann"))
            command = ("prefect", "deployment", "run", "retrain/scheduled", "--watch")
            platform.workspace.run(*command, status=1)
            (platform.workspace.root / "params.yaml").write_text(text)
            until(lambda: len(Hook.said) >= 3)
        finally:
            server.shutdown()
            thread.join()
    drifted, promoted, failed = sorted(Hook.said, key=lambda text: ("Failed" in text, "champion" in text))
    assert drifted == "digits version 3 has drifted: other images arrive\nit is dark."
    assert promoted == "digits version 3 is champion\ngru: it is better."
    assert "scheduled: run" in failed
    assert "did you mean 'elman'?" in failed


def test_what_has_died_is_started_again(platform: Platform) -> None:
    before = {name: platform.process(name).pid for name in ("prefect", "mlflow", "worker")}
    for name in ("mlflow", "prefect"):
        died = platform.process(name)  # MLflow's server leaves its worker, which holds the port
        died.kill()
        psutil.wait_procs([died], timeout=120)
    output = platform.up()
    for name in ("mlflow", "prefect"):
        assert re.search(rf"^{name} .* started$", output, re.MULTILINE)
    assert output.count("already running") == 1
    assert registered(platform) >= 1
    assert platform.process("worker").pid == before["worker"]


def test_up_ends_what_a_killed_worker_took_and_never_began(platform: Platform) -> None:
    """It holds the only slot of its deployment; by itself, Prefect would give that back after five minutes."""
    platform.rest()
    platform.workspace.run("prefect", "deployment", "run", "pipeline/local")
    taken = {
        "flows": {"name": {"any_": ["pipeline"]}},
        "flow_runs": {"state": {"type": {"any_": ["PENDING"]}}},
    }
    (run,) = until(lambda: platform.ask("prefect", "/api/flow_runs/filter", taken), every=0.02)
    platform.process("worker").kill()
    platform.up()
    platform.workspace.run("prefect", "deployment", "run", "pipeline/local", "--watch", timeout_seconds=600)
    assert platform.ask("prefect", f"/api/flow_runs/{run['id']}")["state_type"] in ("CRASHED", "COMPLETED")


def test_a_run_that_is_cancelled_in_prefect_is_gone_within_seconds(platform: Platform) -> None:
    text = (platform.workspace.root / "params.yaml").read_text()
    platform.workspace.change_params(train={"epochs": 100_000})
    try:
        platform.workspace.run("prefect", "deployment", "run", "pipeline/local")
        training = until(lambda: [each for each in platform.processes() if "train" in each.cmdline()[2:3]])
        flow = training[0].parent().parent()  # past dvc
        known = platform.process("worker").children(recursive=True) + training
        body = {
            "flows": {"name": {"any_": ["pipeline"]}},
            "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}},
        }
        (run,) = platform.ask("prefect", "/api/flow_runs/filter", body)
        platform.ask("prefect", f"/api/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})
        _, alive = psutil.wait_procs([flow, *known], timeout=BUSY_SECONDS)
        assert not alive
        until(lambda: platform.ask("prefect", f"/api/flow_runs/{run['id']}")["state_type"] == "CANCELLED")
    finally:
        (platform.workspace.root / "params.yaml").write_text(text)


def test_down_ends_everything_even_what_does_not_listen(platform: Platform) -> None:
    worker = platform.process("worker")
    worker.send_signal(signal.SIGSTOP)  # deaf to SIGTERM
    output = platform.workspace.run("recursight", "down")
    assert "stopped worker, mlflow, prefect" in output
    assert platform.processes() == []
    assert not (platform.workspace.root / "prefect.toml").exists()
    assert "nothing was running" in platform.workspace.run("recursight", "down")
    for port in platform.ports.values():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        output = workspace.run("recursight", "up", f"--mlflow-port={port}", f"--prefect-port={free_port()}", status=2)
    assert f"port {port} for mlflow is in use by process {os.getpid()}" in output
    assert f"--mlflow-port {port + 1}" in output
    assert "Traceback" not in output
    assert workspace.run("recursight", "down").strip() == "nothing was running"


def test_a_prefect_toml_of_yours_is_left_alone(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    path = workspace.root / "prefect.toml"
    path.write_text('[api]\nurl = "http://127.0.0.1:9/api"\n')
    assert "prefect.toml was not written by recursight" in workspace.run("recursight", "up", status=2)
    workspace.run("recursight", "down")
    assert path.exists()
