"""The servers and the worker of a workspace, as tests use them."""

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from tests.tracking.servers import free_port
from tests.workspace import Workspace

TINY: dict[str, Any] = {
    "train": {"epochs": 2, "learning_rate": 0.01, "patience": 0},
    "evaluate": {"mistakes": 4},
    "registry": {"minimums": {"accuracy": 0.05, "worst_class_recall": 0.0}},
    "compare": {"bootstrap_samples": 100},
    "candidates": {"elman": {"layer": "elman", "hidden": 16}},
}
QUICK = {"PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_WORKER_PREFETCH_SECONDS": "2"}


class Platform:
    """A workspace whose servers run."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.ports = {"prefect": free_port(), "mlflow": free_port()}
        self.output = ""

    def up(self) -> str:
        ports = [f"--{name}-port={port}" for name, port in self.ports.items()]
        self.output = self.workspace.run("recursight", "up", *ports, stays=True)
        return self.output

    @property
    def logins(self) -> dict[str, str]:
        path = self.workspace.root / ".recursight" / "servers" / "logins.json"
        logins: dict[str, str] = json.loads(path.read_text())
        return logins

    def ask(self, name: str, path: str, body: Any = None, login: str | None = "own", **headers: str) -> Any:
        """The answer of a server as JSON, or the HTTP status if it is an error."""
        login = self.logins[name] if login == "own" else login
        if login:
            headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[name]}{path}",
            None if body is None else json.dumps(body).encode(),
            headers | {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        return json.loads(content) if content[:1] in b"[{" and content else content.decode()

    def retrainings(self) -> list[dict[str, Any]]:
        """Flow runs of `retrain` that have begun, the newest first; not what came while one was under way."""
        body = {
            "flows": {"name": {"any_": ["retrain"]}},
            "flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED", "PENDING", "CANCELLED"]}}},
            "sort": "START_TIME_DESC",
        }
        runs: list[dict[str, Any]] = self.ask("prefect", "/api/flow_runs/filter", body)
        return runs

    def rest(self) -> None:
        """Waits for the runs that are under way."""
        body = {"flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}}
        until(lambda: self.ask("prefect", "/api/flow_runs/filter", body) == [])

    def process(self, name: str) -> psutil.Process:
        record = json.loads((self.workspace.root / ".recursight" / "servers" / f"{name}.json").read_text())
        return psutil.Process(record["pid"])

    def processes(self) -> list[psutil.Process]:
        """The three and everything that they have started."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("RECURSIGHT_SERVERS_OF") == str(self.workspace.root):
                    found.append(process)
            except psutil.Error:
                continue
        return found


def until(condition: Callable[[], Any], seconds: float = 300, every: float = 0.5) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(every)
    return found


@contextmanager
def running(workspace: Workspace) -> Iterator[Platform]:
    """Its servers up, and down again."""
    made = Platform(workspace)
    made.up()
    try:
        yield made
    finally:
        workspace.run("recursight", "down")
