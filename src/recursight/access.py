"""Addresses and logins of the servers that `recursight up` started for this project.

Every command of recursight finds them. The user's own settings (PREFECT_API_URL, MLFLOW_TRACKING_URI) come first;
servers that have died are ignored.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from recursight.files import read_json, replacing, write_json
from recursight.layout import Layout
from recursight.processes import ProcessIdentity

SETTINGS_NOTE = "# Written by `recursight up`, removed by `recursight down`. Contains a password: never commit it.\n"


@dataclass(frozen=True)
class Running:
    """A service that was started.

    Attributes:
        process: of the service.
        url: of the server; None for the worker.
    """

    process: ProcessIdentity
    url: str | None = None

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive


def folder(layout: Layout) -> Path:
    """Folder of the logins, and of a record of each service."""
    return layout.state / "servers"


def running(layout: Layout, name: str) -> Running | None:
    """The last process started as `prefect`, `mlflow` or `worker`; it may have ended."""
    try:
        record = read_json(folder(layout) / f"{name}.json")
        url = record.pop("url")
        return Running(ProcessIdentity(**record), url)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None


def register(layout: Layout, name: str, running: Running) -> None:
    """Records a service that was started."""
    write_json(folder(layout) / f"{name}.json", asdict(running.process) | {"url": running.url})


def urls(layout: Layout) -> dict[str, str]:
    """Address of each server, running or not."""
    known = {name: running(layout, name) for name in ("prefect", "mlflow")}
    return {name: server.url for name, server in known.items() if server and server.url}


def logins(layout: Layout) -> dict[str, str]:
    """`user:password` of each server."""
    return dict(read_json(folder(layout) / "logins.json"))


def settings(layout: Layout) -> dict[str, str]:
    """Environment variables by which clients find the running servers; empty if there are none."""
    found: dict[str, str] = {}
    try:
        login = logins(layout)
    except (OSError, ValueError, TypeError):  # missing or damaged: `recursight doctor` reports it
        return found
    prefect, mlflow = running(layout, "prefect"), running(layout, "mlflow")
    if prefect and prefect.url and prefect.is_alive:
        found |= {"PREFECT_API_URL": f"{prefect.url}/api", "PREFECT_API_AUTH_STRING": login["prefect"]}
    if mlflow and mlflow.url and mlflow.is_alive:
        user, _, password = login["mlflow"].partition(":")
        found |= {"MLFLOW_TRACKING_URI": mlflow.url}
        found |= {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
    return found


def enter(layout: Layout) -> None:
    """Sets these variables for this process and its children."""
    if not folder(layout).is_dir():
        return
    found = settings(layout)
    for tool, decides in (("PREFECT_", "PREFECT_API_URL"), ("MLFLOW_", "MLFLOW_TRACKING_URI")):
        if decides not in os.environ:
            os.environ.update({name: value for name, value in found.items() if name.startswith(tool)})
    if "PREFECT_API_URL" not in found:
        forget_settings(layout)


def write_settings(layout: Layout) -> None:
    """Writes prefect.toml, which Prefect's own commands read in this folder; readable by its owner only."""
    found = settings(layout)
    text = f'{SETTINGS_NOTE}\n[api]\nurl = "{found["PREFECT_API_URL"]}"\n'
    text += f'auth_string = "{found["PREFECT_API_AUTH_STRING"]}"\n'
    write_secret(_settings_path(layout), text)


def forget_settings(layout: Layout) -> None:
    """Removes prefect.toml if `recursight up` wrote it."""
    if is_ours(layout):
        _settings_path(layout).unlink(missing_ok=True)


def is_ours(layout: Layout) -> bool:
    """Whether there is no prefect.toml, or one that `recursight up` wrote."""
    path = _settings_path(layout)
    return not path.exists() or path.read_text(encoding="utf-8").startswith(SETTINGS_NOTE)


def write_secret(path: Path, text: str) -> None:
    """A file of mode 600 from its first byte on, whole or absent."""
    with replacing(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)


def _settings_path(layout: Layout) -> Path:
    return layout.root / "prefect.toml"
