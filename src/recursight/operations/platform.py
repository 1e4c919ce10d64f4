"""Up and down: the three services started, healthy and known to every command; or gone."""

import base64
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from filelock import FileLock

from recursight import access
from recursight.errors import InputError
from recursight.files import digest, read_json, write_json
from recursight.layout import Layout
from recursight.operations import processes, reaping, services
from recursight.operations.deployment import this_project
from recursight.operations.flow_runs import Prefect
from recursight.operations.services import NAMES, POOL, Service
from recursight.params import load

START_SECONDS = 180.0  # a first start creates databases; a busy machine takes its time
SCHEDULER_SECONDS = 3.0  # from the scheduler's look at a schedule to the runs that it plans, on a busy machine


@dataclass(frozen=True)
class Up:
    """What runs.

    Attributes:
        urls: address of each server.
        started: which of the three were started now; the others ran already.
        deployed: whether the deployments were applied now.
    """

    urls: dict[str, str]
    started: list[str]
    deployed: bool


def up(layout: Layout, prefect_port: int | None = None, mlflow_port: int | None = None) -> Up:
    """Starts what does not run yet, waits until all are healthy, and applies the deployments.

    Args:
        layout: of the project.
        prefect_port: of Prefect's server, if it is to be started; by default the one of the last time, or 4200.
        mlflow_port: the same for MLflow's, or 5000.

    Raises:
        InputError: if a port is in use, a service does not come up, or prefect.yaml or params.yaml is wrong.
    """
    load(layout.params)
    if not access.is_ours(layout):
        raise InputError("prefect.toml is yours, and connects Prefect here to another server: move it away first.")
    with _lock(layout):
        logins = services.ensure_logins(layout)
        started: list[str] = []
        wanted = {"prefect": prefect_port, "mlflow": mlflow_port}
        missing = [name for name in wanted if not _lives(layout, name)]
        for name in missing:  # a server that was killed leaves its workers, and they the port in use
            processes.end(processes.descendants(layout, name))
        ports = {name: services.choose_port(layout, name, wanted[name]) for name in missing}
        made = {name: getattr(services, name)(layout, logins[name], port) for name, port in ports.items()}
        before = access.urls(layout)
        for service in made.values():  # all at once: each needs seconds of imports
            _start(layout, service, started)
        for service in made.values():
            _until(layout, service.name, partial(_healthy, f"{service.url}{service.health}"))
        if before != access.urls(layout):
            processes.stop(layout, "worker")  # it knows the servers by their addresses
        if not _lives(layout, "worker"):
            _start(layout, services.worker(layout), started)
            _until(layout, "worker", partial(_worker_is_online, layout))
            _end_dead_runs(layout)
        access.write_settings(layout)
        deployed = _deploy(layout, anew="prefect" in started)
    return Up(access.urls(layout), started, deployed)


def down(layout: Layout) -> list[str]:
    """Ends the three and all that they have started; which of them were alive."""
    with _lock(layout):
        stopped = [name for name in reversed(NAMES) if processes.stop(layout, name)]
        processes.end(processes.descendants(layout))
        access.forget_settings(layout)
    return stopped


def _start(layout: Layout, service: Service, started: list[str]) -> None:
    processes.start(layout, service.name, service.command, service.environment, service.url)
    started.append(service.name)


def _until(layout: Layout, name: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if not _lives(layout, name) or time.monotonic() > deadline:
            log = processes.log_of(layout, name)
            told = processes.last_lines(log)
            state = f"is not healthy after {START_SECONDS:.0f} s" if _lives(layout, name) else "ended at once"
            raise InputError(f"{name} {state}; the end of {log.relative_to(layout.root)}:\n{told}")
        time.sleep(0.25)


def _lives(layout: Layout, name: str) -> bool:
    known = access.running(layout, name)
    return known is not None and known.lives


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _worker_is_online(layout: Layout) -> bool:
    """Whether the server has heard from the worker since this one was started."""
    worker = access.running(layout, "worker")
    assert worker is not None
    try:
        found = ask_prefect(layout, f"/work_pools/{POOL}/workers/filter", {})
    except OSError:
        return False
    started = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(worker.started))
    return any(each["status"] == "ONLINE" and each["last_heartbeat_time"] >= started for each in found)


def _end_dead_runs(layout: Layout) -> None:
    """Ends what an earlier worker took before it was killed: the next run would wait minutes for its slot."""
    settings = access.settings(layout)
    prefect = Prefect(settings["PREFECT_API_URL"], settings["PREFECT_API_AUTH_STRING"])
    with suppress(OSError, ValueError):  # every flow tries it again when it begins
        reaping.runs_of_flows(layout, prefect, clear=True)


def ask_prefect(layout: Layout, path: str, body: Any, timeout_seconds: float = 10) -> Any:
    """POSTs to this project's Prefect server without importing Prefect; raises OSError if it does not answer well."""
    settings = access.settings(layout)
    if "PREFECT_API_URL" not in settings:
        raise ConnectionError("no Prefect server runs for this project")
    token = base64.b64encode(settings["PREFECT_API_AUTH_STRING"].encode()).decode()
    request = urllib.request.Request(
        settings["PREFECT_API_URL"] + path,
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {token}"},
    )
    with urllib.request.urlopen(request, timeout=timeout_seconds) as answer:
        content = answer.read()
    return json.loads(content) if content else None


def _deploy(layout: Layout, anew: bool) -> bool:
    """`prefect deploy --all`, if the server or what is deployed is new."""
    applied = access.folder(layout) / "deployed.json"
    wanted = digest([(layout.root / "prefect.yaml").read_text(), this_project()])
    if not anew and applied.exists() and read_json(applied) == wanted:
        return False
    service = services.worker(layout)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    with processes.log_of(layout, "deploy").open("w+") as log:
        code = subprocess.run(
            command, cwd=layout.root, env=service.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ).returncode
    if code:
        raise InputError(f"`prefect deploy --all` failed:\n{processes.last_lines(processes.log_of(layout, 'deploy'))}")
    _withdraw_planned(layout)
    write_json(applied, wanted)
    return True


def _withdraw_planned(layout: Layout) -> None:
    """Deletes the runs of a schedule that is off, until no more come.

    Prefect deletes them itself, but its scheduler, at work at that moment, may plan an hour's runs once more.
    """
    settings = load(layout.params)
    if settings.retrain.schedule and settings.monitor.schedule:
        return
    deployments = ask_prefect(layout, "/deployments/filter", {})
    off = [each["id"] for each in deployments if not any(schedule["active"] for schedule in each["schedules"])]
    planned = {
        "deployment_id": {"any_": off},
        "tags": {"all_": ["auto-scheduled"]},
        "state": {"type": {"any_": ["SCHEDULED"]}},
    }
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < SCHEDULER_SECONDS:
        if ask_prefect(layout, "/flow_runs/bulk_delete", {"flow_runs": planned}, timeout_seconds=60)["deleted"]:
            quiet_since = time.monotonic()
        time.sleep(0.5)


def _lock(layout: Layout) -> FileLock:
    path = layout.lock("servers")
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)
