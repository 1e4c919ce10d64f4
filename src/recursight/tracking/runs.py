"""The MLflow run of a training: its tags, how it is found again, and how it ends if its process dies."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recursight.params import Params
from recursight.processes import ProcessIdentity

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

TRAINING = "recursight.training_digest"
BUNDLE = "recursight.bundle_digest"
EVALUATION = "recursight.evaluation_digest"
PROCESS = "recursight.process"
ROOT = "recursight.root"


def owner_tags(root: Path) -> dict[str, str]:
    """The tags by which this process, in this project, owns a run: if it dies, the run is ended."""
    return {PROCESS: str(ProcessIdentity.of()), ROOT: str(root)}


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
        run
        for run in found
        if run.info.status != "RUNNING" or has_lost_owner(run) or run.data.tags.get(ROOT) == str(root)
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


def end_leftovers(client: "MlflowClient", experiment: str) -> list[str]:
    """Ends the runs of this machine whose process is gone, as KILLED; returns their ids."""
    ids = [run.info.run_id for run in leftovers(client, experiment)]
    for run_id in ids:
        client.set_terminated(run_id, "KILLED")
    return ids


def leftovers(client: "MlflowClient", experiment: str) -> "list[Run]":
    """Runs of this machine that count as running although their process is gone."""
    return [run for run in running(client, experiment) if has_lost_owner(run)]


def running(client: "MlflowClient", experiment: str) -> "list[Run]":
    """Runs that count as running, of any machine."""
    return list(client.search_runs([experiment], "attributes.status = 'RUNNING'"))


def has_lost_owner(run: "Run") -> bool:
    """Whether the process that owned the run is surely gone; one of another machine may be alive."""
    owner = ProcessIdentity.parse(run.data.tags.get(PROCESS, ""))
    return owner is not None and owner.is_gone
