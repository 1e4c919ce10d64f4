"""The MLflow run of a training: its tags, how it is found again, and what becomes of a dead one."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from recursight.params import Params

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

TRAINING = "recursight.training_digest"
BUNDLE = "recursight.bundle_digest"
EVALUATION = "recursight.evaluation_digest"
HOST = "recursight.host"
PID = "recursight.pid"
STARTED = "recursight.process_started"
ROOT = "recursight.root"


@dataclass(frozen=True)
class Owner:
    """The process whose death ends a run; its start time tells it from a later one with the same id."""

    host: str
    pid: int
    started: float
    root: str

    @classmethod
    def process(cls, root: Path, pid: int | None = None) -> "Owner":
        pid = pid or os.getpid()
        return cls(socket.gethostname(), pid, psutil.Process(pid).create_time(), str(root))

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> "Owner | None":
        """The process that a run's tags name; None if they name none."""
        if PID not in tags:
            return None
        return cls(tags.get(HOST, ""), int(tags[PID]), float(tags[STARTED]), tags.get(ROOT, ""))

    @property
    def is_gone(self) -> bool:
        """Whether it has surely ended; unknown, as on another machine, is not gone."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1
            return not same or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    @property
    def tags(self) -> dict[str, str]:
        return {HOST: self.host, PID: str(self.pid), STARTED: f"{self.started:.2f}", ROOT: self.root}


def run_name(params: Params, candidate: str, seed: int) -> str:
    """The candidate's name; with its seed where there are several."""
    return candidate if params.seeds == [seed] else f"{candidate}-seed-{seed}"


def tags_of(card: dict[str, Any], git_commit: str | None) -> dict[str, str]:
    """What runs are grouped and found by in the UI: `candidate` (over its seeds) and `data` (over everything)."""
    tags = {
        "candidate": card["candidate"],
        "seed": str(card["seed"]),
        "data": card["data_digest"][:12],
        TRAINING: card["training_digest"],
        "recursight.data_digest": card["data_digest"],
        "mlflow.source.name": f"recursight train {card['candidate']}",
        "mlflow.source.type": "LOCAL",
    }
    if git_commit:
        tags |= {"git_commit": git_commit, "mlflow.source.git.commit": git_commit.removesuffix("-dirty")}
    return tags


def params_of(card: dict[str, Any]) -> dict[str, str]:
    """Parameters, flattened, under the names that they have in params.yaml."""
    settings = {"seed": card["seed"]} | card["architecture"] | {"train": card["training"]}
    return {key: str(value) for key, value in flattened(settings).items()}


def flattened(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} to {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def find_finished(client: "MlflowClient", experiment: str, **tags: str) -> "Run | None":
    """The run of a finished training that bears some tags, by their short names: `training`, `bundle`, `candidate`."""
    return min(_search(client, experiment, "= 'FINISHED'", tags), key=_seniority, default=None)


def only_one(client: "MlflowClient", experiment: str, bundle: str) -> "Run | None":
    """Of several finished runs of one bundle keeps the first, and returns it.

    Two clones of a project may send the same result at the same time. Whoever ends its run last sees all of them, and
    everybody keeps the same one, so that one remains.
    """
    found = sorted(_search(client, experiment, "= 'FINISHED'", {"bundle": bundle}), key=_seniority)
    for twin in found[1:]:
        client.delete_run(twin.info.run_id)
    return found[0] if found else None


def _seniority(run: "Run") -> tuple[bool, int, str]:
    """An evaluated one first: a version may have been made of it."""
    return EVALUATION not in run.data.tags, int(run.info.start_time), str(run.info.run_id)


def unfinished(
    client: "MlflowClient", experiment: str, candidate: str, training_digest: str, root: Path
) -> "list[Run]":
    """Runs of the same training that were cut off; never one that another process still writes.

    There is more than one where the answer to a run's creation was lost and the request was sent again.
    """
    found = _search(client, experiment, "!= 'FINISHED'", {"candidate": candidate, "training": training_digest})
    return [
        run for run in found if run.info.status != "RUNNING" or is_dead(run) or run.data.tags.get(ROOT) == str(root)
    ]


def _search(client: "MlflowClient", experiment: str, status: str, tags: dict[str, str]) -> "list[Run]":
    names = {"training": TRAINING, "bundle": BUNDLE}
    conditions = [f"tags.`{names.get(name, name)}` = '{value}'" for name, value in tags.items()]
    return list(client.search_runs([experiment], " and ".join([*conditions, f"attributes.status {status}"])))


def adopt_run(client: "MlflowClient", run_id: str, tags: dict[str, str]) -> None:
    """Makes a cut-off run one's own."""
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    client.update_run(run_id, status="RUNNING")


def reap(client: "MlflowClient", experiment: str) -> list[str]:
    """Ends the runs of this machine whose process is gone, as KILLED; returns their ids."""
    dead = [run.info.run_id for run in dead_runs(client, experiment)]
    for run_id in dead:
        client.set_terminated(run_id, "KILLED")
    return dead


def dead_runs(client: "MlflowClient", experiment: str) -> "list[Run]":
    """Runs of this machine that count as running although their process is gone."""
    return [run for run in running(client, experiment) if is_dead(run)]


def running(client: "MlflowClient", experiment: str) -> "list[Run]":
    """Runs of this machine that count as running."""
    condition = f"tags.`{HOST}` = '{socket.gethostname()}' and attributes.status = 'RUNNING'"
    return list(client.search_runs([experiment], condition))


def is_dead(run: "Run") -> bool:
    """Whether the process that owned the run is surely gone; unknown, as on another machine, is not dead."""
    owner = Owner.of_tags(run.data.tags)
    return owner is not None and owner.is_gone
