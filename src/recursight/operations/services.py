"""The services of a project, all on 127.0.0.1: Prefect's server, MLflow's server and a worker.

Processes that a service starts inherit its environment variables, by which they are found even if it was killed.
"""

import json
import os
import secrets
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from recursight import access, host_check, processes
from recursight.access import Running
from recursight.errors import InputError
from recursight.executors.local import flow_mark
from recursight.layout import Layout
from recursight.operations.prefect_api import PrefectApi

HOST = "127.0.0.1"
PORTS = {"prefect": 4200, "mlflow": 5000}
POOL = "recursight"
NAMES = ("prefect", "mlflow", "worker")
PROJECT_MARK = "RECURSIGHT_SERVERS_OF"  # the project's folder
NAME_MARK = "RECURSIGHT_SERVER"  # name of the service

# The user's own connections are not passed to the servers; settings of the servers (PREFECT_SERVER_...) are.
FOREIGN = (
    "PREFECT_API_URL",
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_PROFILE",
    "PREFECT_PROFILES_PATH",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_RUN_ID",
    "MLFLOW_EXPERIMENT_ID",
)


@dataclass(frozen=True)
class Service:
    """One of the three services.

    Attributes:
        name: `prefect`, `mlflow` or `worker`.
        command: that starts it.
        environment: of its process.
        url: of its server; None for the worker.
        health: path of the health check.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    url: str | None = None
    health: str = ""


def ensure_logins(layout: Layout) -> dict[str, str]:
    """`user:password` of each server; created once."""
    path = access.folder(layout) / "logins.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = {name: f"recursight:{secrets.token_urlsafe(24)}" for name in PORTS}
        access.write_secret(path, json.dumps(made, indent=2) + "\n")
    path.chmod(0o600)
    return access.logins(layout)


def choose_port(layout: Layout, name: str, wanted: int | None) -> int:
    """The wanted port, else the previous one, else the default.

    Raises:
        InputError: if it is in use, with the process that uses it.
    """
    last = access.running(layout, name)
    known = int(last.url.rpartition(":")[2]) if last and last.url else PORTS[name]
    port = wanted or known
    return free_port(port, f" for {name}", f"recursight up --{name}-port {port + 1}")


def free_port(wanted: int = 0, purpose: str = "", alternative: str = "") -> int:
    """A free port of this machine: the wanted one, or any.

    Args:
        wanted: 0 for any.
        purpose: of the port, for the message.
        alternative: command that chooses another port, for the message.

    Raises:
        InputError: if the wanted port is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just closed is free
        try:
            probe.bind((HOST, wanted))
        except OSError:
            raise InputError(
                f"port {wanted}{purpose} is in use by {processes.listener_on(wanted)}: stop that, or choose another "
                f"with `{alternative}`."
            ) from None
        return int(probe.getsockname()[1])


def prefect(layout: Layout, login: str, port: int) -> Service:
    url = f"http://{HOST}:{port}"
    environment = _environment() | _checked(login, port)
    environment |= {
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_API_AUTH_STRING": login,
        "PREFECT_SERVER_API_AUTH_STRING": login,  # for websockets
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{url},http://localhost:{port}",
        "PREFECT_HOME": str(_prefect_home(layout)),
    }
    return Service("prefect", _prefect_command("create_app", port), environment, url, "/api/health")


def temporary_prefect() -> tuple[Service, PrefectApi]:
    """A Prefect server for the flows of this process, and its client.

    It uses the user's own database, as Prefect's temporary server does, but requires a password and ends with this
    process.
    """
    port = free_port()
    url, login = f"http://{HOST}:{port}", f"recursight:{secrets.token_urlsafe(24)}"
    prefect = PrefectApi(f"{url}/api", login)
    environment = os.environ | _checked(login, port) | flow_mark()
    environment |= {"PREFECT_API_URL": prefect.url, "PREFECT_API_AUTH_STRING": login}
    environment |= {"PREFECT_SERVER_API_AUTH_STRING": login, "PREFECT_UI_ENABLED": "false"}
    return Service("flows", _prefect_command("create_temporary_app", port), environment, url, "/api/health"), prefect


def mlflow(layout: Layout, login: str, port: int) -> Service:
    url = f"http://{HOST}:{port}"
    environment = _environment() | _checked(login, port)
    environment |= {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # saves five processes
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST}:{port},localhost:{port}",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"{url},http://localhost:{port}",
    }
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "recursight"]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    if "MLFLOW_BACKEND_STORE_URI" not in environment:
        command += ["--backend-store-uri", f"sqlite:///{layout.root / 'mlflow.db'}"]
    if "MLFLOW_ARTIFACTS_DESTINATION" not in environment:
        # The same folder as without a server, so that both find the same files.
        command += ["--no-serve-artifacts", "--default-artifact-root", (layout.root / "mlartifacts").as_uri()]
    return Service("mlflow", command, environment, url, "/health")


def worker(layout: Layout) -> Service:
    environment = _environment() | access.settings(layout) | {"PREFECT_HOME": str(_prefect_home(layout))}
    environment |= {"PREFECT_WORKER_WEBSERVER_HOST": HOST}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    return Service("worker", [*command, "--name", "local", "--install-policy", "never"], environment)


def _prefect_command(app: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "uvicorn", "--factory", f"recursight.operations.prefect_app:{app}"]
    return [*command, "--host", HOST, "--port", str(port), "--timeout-keep-alive", "5", "--log-level", "warning"]


def _environment() -> dict[str, str]:
    """The environment of this process, with the project's commands first on PATH and without usage statistics."""
    commands = str(Path(sys.executable).parent)
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return kept | {
        "PATH": f"{commands}{os.pathsep}{os.environ.get('PATH', '')}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _checked(login: str, port: int) -> dict[str, str]:
    return {host_check.LOGIN: login, host_check.HOSTS: f"{HOST}:{port},localhost:{port}"}


def _prefect_home(layout: Layout) -> Path:
    return layout.state / "prefect"


def start(layout: Layout, service: Service) -> Running:
    """Starts a service in the background; its output is appended to its log."""
    marks = {PROJECT_MARK: str(layout.root), NAME_MARK: service.name}
    environment = service.environment | marks
    process = processes.start(service.command, layout.root, environment, log_of(layout, service.name))
    return Running(process, service.url)


def stop(layout: Layout, name: str) -> bool:
    """Stops a registered service with its descendants and removes its record; returns whether it was running."""
    known = access.running(layout, name)
    process = known.process.process if known else None
    if process:
        root, *descendants = processes.with_descendants(process) or [process]
        processes.end([root])
        processes.end(descendants)
    (access.folder(layout) / f"{name}.json").unlink(missing_ok=True)
    return process is not None


def end_all(layout: Layout, name: str | None = None) -> None:
    """Stops the services of this project and every process that they started.

    Args:
        layout: of the project.
        name: of one service; by default all.
    """
    marks = {PROJECT_MARK: str(layout.root)} | ({NAME_MARK: name} if name else {})
    processes.end(processes.carrying(marks))


def log_of(layout: Layout, name: str) -> Path:
    return layout.state / "logs" / f"{name}.log"


def last_lines(path: Path, count: int = 8) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return "\n".join(lines[-count:])
