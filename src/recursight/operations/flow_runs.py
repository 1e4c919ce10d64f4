"""Flow runs that Prefect takes for running although their process is gone: found, and ended by its API."""

import base64
import json
import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psutil

from recursight import access
from recursight.layout import Layout
from recursight.operations import owners
from recursight.tracking.runs import Owner

FLOWS = ["pipeline", "retrain", "monitor"]
UNFINISHED = ["PENDING", "RUNNING", "CANCELLING"]
PAGE = 200  # the most that Prefect hands out at once
STARTED_WITHIN_SECONDS = 1.0  # the kernel tells the start of a process by whole seconds; no worker takes a run so soon
RUN_OF_PROCESS = "PREFECT__FLOW_RUN_ID"  # in the environment of each process that a worker starts


@dataclass(frozen=True)
class Prefect:
    """A Prefect server, spoken to without importing Prefect.

    Attributes:
        url: of its API.
        login: `user:password`; empty where none is asked for.
        key: of Prefect Cloud; empty elsewhere.
        timeout_seconds: of one request.
    """

    url: str
    login: str = ""
    key: str = ""
    timeout_seconds: float = 10.0

    @classmethod
    def of_environment(cls, timeout_seconds: float = 10.0) -> "Prefect | None":
        """The one that the settings name; None if flows run in a temporary one."""
        url = os.environ.get("PREFECT_API_URL")
        login, key = os.environ.get("PREFECT_API_AUTH_STRING", ""), os.environ.get("PREFECT_API_KEY", "")
        return cls(url.rstrip("/"), login, key, timeout_seconds) if url else None

    @property
    def headers(self) -> dict[str, str]:
        """Of each request."""
        headers = {"Content-Type": "application/json"}
        if self.login:
            headers["Authorization"] = f"Basic {base64.b64encode(self.login.encode()).decode()}"
        elif self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        return headers

    def ask(self, path: str, body: Any = None, method: str = "POST") -> Any:
        """The answer; raises OSError if there is no good one."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", content, self.headers, method=method)
        with urllib.request.urlopen(request, timeout=self.timeout_seconds) as answer:
            text = answer.read()
        return json.loads(text) if text else None


@contextmanager
def prefect_of_flows() -> Iterator[Prefect]:
    """The server in which flows run here and now; a temporary one is started for it, and ended with this process."""
    named = Prefect.of_environment()
    if named:
        yield named
        return
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    with get_client(sync_client=True) as client:
        login, key = get_current_settings().api.auth_string, get_current_settings().api.key
        yield Prefect(
            str(client.api_url).rstrip("/"),
            login.get_secret_value() if login else "",
            key.get_secret_value() if key else "",
        )


def sign(prefect: Prefect, run_id: str, tags: list[str], owner: Owner) -> None:
    """Makes a run carry its owner's tag, if it was begun by somebody else, as a worker."""
    if owners.tag(owner) not in tags:
        kept = [tag for tag in tags if not tag.startswith(owners.TAG)]
        prefect.ask(f"/flow_runs/{run_id}", {"tags": [*kept, owners.tag(owner)]}, "PATCH")


def dead(prefect: Prefect, layout: Layout) -> list[dict[str, Any]]:
    """Runs whose process is surely gone: of this machine, by their tag, or of this project's own worker."""
    body = {
        "flows": {"name": {"any_": FLOWS}},
        "flow_runs": {"state": {"type": {"any_": UNFINISHED}}},
        "limit": PAGE,
    }
    found = []
    for run in prefect.ask("/flow_runs/filter", body):
        owner = owners.of_tags(run["tags"])
        if owner.is_gone if owner else _was_never_begun(prefect, layout, run):
            found.append(run)
    return found


def end(prefect: Prefect, run: dict[str, Any]) -> None:
    """Marks a run as crashed (as cancelled, if that was asked for), with its tasks; that frees its slot, too."""
    if run["state"]["type"] == "CANCELLING":
        cancel(prefect, run["id"], "Its process is gone.")
    else:
        message = f"Its process on {socket.gethostname()} was killed."
        _set_state(prefect, run["id"], {"type": "CRASHED", "name": "Crashed", "message": message})


def cancel(prefect: Prefect, run_id: str, message: str) -> None:
    """Marks a run as cancelled, with its tasks."""
    _set_state(prefect, run_id, {"type": "CANCELLED", "name": "Cancelled", "message": message})


def _set_state(prefect: Prefect, run_id: str, state: dict[str, str]) -> None:
    """Of a run, then of its tasks: the run tells people, and time may be short."""
    prefect.ask(f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})
    tasks = {
        "flow_runs": {"id": {"any_": [run_id]}},
        "task_runs": {"state": {"type": {"any_": UNFINISHED}}},
        "limit": PAGE,
    }
    for task in prefect.ask("/task_runs/filter", tasks):
        prefect.ask(f"/task_runs/{task['id']}/set_state", {"state": state, "force": True})


def _was_never_begun(prefect: Prefect, layout: Layout, run: dict[str, Any]) -> bool:
    """Whether a deployed run was taken by this project's worker, which then was killed before the run had a tag.

    Known only of the server that `recursight up` runs: its one worker is here.
    """
    if not run["deployment_id"] or prefect.url != f"{access.urls(layout).get('prefect')}/api":
        return False
    worker = access.running(layout, "worker")
    taken = datetime.fromisoformat(run["state"]["timestamp"]).timestamp()
    if worker and worker.lives and worker.started + STARTED_WITHIN_SECONDS < taken:
        return False
    return not any(_environment(process).get(RUN_OF_PROCESS) == run["id"] for process in psutil.process_iter())


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):
        return {}
