"""`recursight up` and `down`: start the three services and make every command use them, or stop them."""

import atexit
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from filelock import FileLock

from recursight import access, processes
from recursight.access import Running
from recursight.errors import InputError
from recursight.files import digest, read_json, write_json
from recursight.layout import Layout
from recursight.operations import cleanup, services
from recursight.operations.deployment import this_project
from recursight.operations.prefect_api import PrefectApi
from recursight.operations.services import NAMES, POOL, Service
from recursight.params import load

START_SECONDS = 180.0  # the first start creates databases
SCHEDULER_SECONDS = 3.0  # between reading a schedule and creating its runs, Prefect's scheduler may take so long


@dataclass(frozen=True)
class Up:
    """The running services.

    Attributes:
        urls: address of each server.
        started: names of those that were started now; the others were running already.
        deployed: whether the deployments were applied now.
    """

    urls: dict[str, str]
    started: list[str]
    deployed: bool


def up(layout: Layout, prefect_port: int | None = None, mlflow_port: int | None = None) -> Up:
    """Starts services that do not run, waits until all are healthy, and applies the deployments.

    Args:
        layout: of the project.
        prefect_port: for Prefect's server if it is started; default: the previous port, or 4200.
        mlflow_port: for MLflow's server if it is started; default: the previous port, or 5000.

    Raises:
        InputError: if a port is in use, a service does not start, or prefect.yaml or params.yaml is invalid.
    """
    load(layout.params)
    if not access.is_ours(layout):
        raise InputError(
            "prefect.toml was not written by recursight and names another Prefect server: move it away first."
        )
    with _lock(layout):
        logins = services.ensure_logins(layout)
        started: list[str] = []
        wanted = {"prefect": prefect_port, "mlflow": mlflow_port}
        missing = [name for name in wanted if not _is_alive(layout, name)]
        for name in missing:  # workers of a killed server keep its port in use
            services.end_all(layout, name)
        ports = {name: services.choose_port(layout, name, wanted[name]) for name in missing}
        made = {name: getattr(services, name)(layout, logins[name], port) for name, port in ports.items()}
        before = access.urls(layout)
        for service in made.values():  # in parallel: each imports for seconds
            _start(layout, service, started)
        for service in made.values():
            _await(layout, service.name, partial(_is_healthy, service))
        if before != access.urls(layout):
            services.stop(layout, "worker")  # it was started with the old addresses
        if not _is_alive(layout, "worker"):
            _start(layout, services.worker(layout), started)
            _await(layout, "worker", partial(_worker_is_online, layout))
            with suppress(OSError, ValueError):  # otherwise the next run waits minutes for their slot
                cleanup.runs_of_flows(layout, PrefectApi.of_project(layout), clear=True)
        access.write_settings(layout)
        deployed = _deploy(layout, anew="prefect" in started)
    return Up(access.urls(layout), started, deployed)


def down(layout: Layout) -> list[str]:
    """Stops the three services and everything they started; returns which of them were running."""
    with _lock(layout):
        with ThreadPoolExecutor() as pool:  # the worker before the server that it reports to
            alive = [services.stop(layout, "worker"), *pool.map(partial(services.stop, layout), ("mlflow", "prefect"))]
        services.end_all(layout)
        access.forget_settings(layout)
    return [name for name, was_alive in zip(reversed(NAMES), alive, strict=True) if was_alive]


@contextmanager
def prefect_for_flows(layout: Layout) -> Iterator[PrefectApi]:
    """The Prefect server for flows in this process: the configured one, else a temporary one.

    A temporary one ends with this process, not with the block: Prefect sends its last events when Python exits.

    Raises:
        InputError: if the temporary one does not start.
    """
    configured = PrefectApi.configured()
    if configured:
        yield configured
        return
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    service, prefect = services.temporary_prefect()
    log = services.log_of(layout, service.name)
    running = Running(processes.start(service.command, layout.root, service.environment, log), service.url)
    atexit.register(_end, running)
    _await(layout, service.name, partial(_is_healthy, service), running)
    with temporary_settings({PREFECT_API_URL: prefect.url, PREFECT_API_AUTH_STRING: prefect.login}):
        yield prefect


def _end(running: Running) -> None:
    process = running.process.process
    if process:
        processes.end([process], (2.0,))


def _start(layout: Layout, service: Service, started: list[str]) -> None:
    access.register(layout, service.name, services.start(layout, service))
    started.append(service.name)


def _await(layout: Layout, name: str, is_ready: Callable[[], bool], running: Running | None = None) -> None:
    """Waits until a service is ready; raises InputError, with the end of its log, if it ends or takes too long."""
    running = running or access.running(layout, name)
    assert running is not None
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        if not running.is_alive or time.monotonic() > deadline:
            log = services.log_of(layout, name)
            state = f"is not healthy after {START_SECONDS:.0f} s" if running.is_alive else "ended at once"
            end = f"{log.relative_to(layout.root)}:\n{services.last_lines(log)}"
            raise InputError(f"{name} {state}; the end of {end}")
        time.sleep(0.25)


def _is_alive(layout: Layout, name: str) -> bool:
    known = access.running(layout, name)
    return known is not None and known.is_alive


def _is_healthy(service: Service) -> bool:
    try:
        with urllib.request.urlopen(f"{service.url}{service.health}", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _worker_is_online(layout: Layout) -> bool:
    """Whether the server has received a heartbeat of the worker since it was started."""
    worker = access.running(layout, "worker")
    assert worker is not None
    try:
        found = PrefectApi.of_project(layout).ask(f"/work_pools/{POOL}/workers/filter", {})
    except OSError:
        return False
    started = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(worker.process.started))
    return any(each["status"] == "ONLINE" and each["last_heartbeat_time"] >= started for each in found)


def _deploy(layout: Layout, anew: bool) -> bool:
    """Runs `prefect deploy --all` if the server or the deployments are new."""
    applied = access.folder(layout) / "deployed.json"
    wanted = digest([(layout.root / "prefect.yaml").read_text(), this_project()])
    if not anew and applied.exists() and read_json(applied) == wanted:
        return False
    service = services.worker(layout)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    with services.log_of(layout, "deploy").open("w+") as log:
        code = subprocess.run(
            command, cwd=layout.root, env=service.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ).returncode
    if code:
        raise InputError(f"`prefect deploy --all` failed:\n{services.last_lines(services.log_of(layout, 'deploy'))}")
    _withdraw_planned(layout)
    write_json(applied, wanted)
    return True


def _withdraw_planned(layout: Layout) -> None:
    """Deletes scheduled runs of disabled schedules until no more appear.

    Prefect deletes them itself, but its scheduler, if it is running at that moment, may create them once more.
    """
    settings = load(layout.params)
    if settings.retrain.schedule and settings.monitor.schedule:
        return
    prefect = PrefectApi.of_project(layout, timeout_seconds=60)
    deployments = prefect.ask("/deployments/filter", {})
    off = [each["id"] for each in deployments if not any(schedule["active"] for schedule in each["schedules"])]
    planned = {
        "deployment_id": {"any_": off},
        "tags": {"all_": ["auto-scheduled"]},
        "state": {"type": {"any_": ["SCHEDULED"]}},
    }
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < SCHEDULER_SECONDS:
        if prefect.ask("/flow_runs/bulk_delete", {"flow_runs": planned})["deleted"]:
            quiet_since = time.monotonic()
        time.sleep(0.5)


def _lock(layout: Layout) -> FileLock:
    path = layout.lock("servers")
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)
