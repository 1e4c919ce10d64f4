"""Finds and ends flow runs that Prefect shows as running although their process has ended."""

import socket
from datetime import datetime
from typing import Any

from recursight import access, processes
from recursight.layout import Layout
from recursight.operations.prefect_api import PrefectApi
from recursight.processes import ProcessIdentity

FLOWS = ["pipeline", "retrain", "monitor"]
UNFINISHED = ["PENDING", "RUNNING", "CANCELLING"]
PAGE = 200  # the most that Prefect returns at once
STARTED_WITHIN_SECONDS = 1.0  # the system rounds starts of processes to seconds; no worker takes a run so soon
RUN_OF_PROCESS = "PREFECT__FLOW_RUN_ID"  # in the environment of each process that a worker starts
TAG = "process "


def tag(process: ProcessIdentity) -> str:
    """The tag of a flow run that names its process."""
    return f"{TAG}{process}"


def sign(prefect: PrefectApi, run_id: str, tags: list[str]) -> None:
    """Tags a run that another process created, such as a worker, with this process."""
    own = tag(ProcessIdentity.of())
    if own not in tags:
        kept = [each for each in tags if not each.startswith(TAG)]
        prefect.ask(f"/flow_runs/{run_id}", {"tags": [*kept, own]}, "PATCH")


def process_of(tags: list[str]) -> ProcessIdentity | None:
    """The process of a flow run; None if its tags name none."""
    found = (ProcessIdentity.parse(each.removeprefix(TAG)) for each in tags if each.startswith(TAG))
    return next(filter(None, found), None)


def leftovers(prefect: PrefectApi, layout: Layout) -> list[dict[str, Any]]:
    """Runs whose process has certainly ended: of this machine, by their tag, or of this project's worker."""
    body = {
        "flows": {"name": {"any_": FLOWS}},
        "flow_runs": {"state": {"type": {"any_": UNFINISHED}}},
        "limit": PAGE,
    }
    found = []
    for run in prefect.ask("/flow_runs/filter", body):
        process = process_of(run["tags"])
        if process.is_gone if process else _was_never_begun(prefect, layout, run):
            found.append(run)
    return found


def end(prefect: PrefectApi, run: dict[str, Any]) -> None:
    """Marks a run and its tasks as crashed, or cancelled if that was requested, which frees its slot."""
    if run["state"]["type"] == "CANCELLING":
        cancel(prefect, run["id"], "Its process has ended.")
    else:
        message = f"Its process on {socket.gethostname()} was killed."
        _set_state(prefect, run["id"], {"type": "CRASHED", "name": "Crashed", "message": message})


def cancel(prefect: PrefectApi, run_id: str, message: str) -> None:
    """Marks a run and its tasks as cancelled."""
    _set_state(prefect, run_id, {"type": "CANCELLED", "name": "Cancelled", "message": message})


def _set_state(prefect: PrefectApi, run_id: str, state: dict[str, str]) -> None:
    """Sets the state of a run, then of its tasks; the run is more important if time is short."""
    prefect.ask(f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})
    tasks = {
        "flow_runs": {"id": {"any_": [run_id]}},
        "task_runs": {"state": {"type": {"any_": UNFINISHED}}},
        "limit": PAGE,
    }
    for task in prefect.ask("/task_runs/filter", tasks):
        prefect.ask(f"/task_runs/{task['id']}/set_state", {"state": state, "force": True})


def _was_never_begun(prefect: PrefectApi, layout: Layout, run: dict[str, Any]) -> bool:
    """Whether this project's worker took a deployed run and was killed before the run had a tag.

    Known only for the server of `recursight up`, whose only worker runs here.
    """
    if not run["deployment_id"] or prefect.url != f"{access.urls(layout).get('prefect')}/api":
        return False
    worker = access.running(layout, "worker")
    taken = datetime.fromisoformat(run["state"]["timestamp"]).timestamp()
    if worker and worker.is_alive and worker.process.started + STARTED_WITHIN_SECONDS < taken:
        return False
    return not processes.carrying({RUN_OF_PROCESS: run["id"]})
