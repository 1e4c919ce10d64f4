"""The MLflow run of a training: its tags, how it is found, and how it is ended if its process dies."""

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
    """Tags that make this process and project the owner of a run: if the process dies, the run is ended."""
    return {PROCESS: str(ProcessIdentity.of()), ROOT: str(root)}


def run_name(params: Params, candidate: str, seed: int) -> str:
    """The candidate's name, with the seed if there are several."""
    return candidate if params.seeds == [seed] else f"{candidate}-seed-{seed}"


def tags_of(card: dict[str, Any], git_commit: str | None) -> dict[str, str]:
    """Tags for grouping and finding runs in the UI: `candidate` groups seeds, `data` everything trained on it."""
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
    """Parameters, flattened, under their names in params.yaml."""
    settings = {"seed": card["seed"]} | card["architecture"] | {"train": card["training"]}
    return {key: str(value) for key, value in flattened(settings).items()}


def flattened(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} to {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def find_finished(client: "MlflowClient", experiment: str, **tags: str) -> "Run | None":
    """The run of a finished training with the given tags, by their short names: `training`, `bundle`, `candidate`."""
    return min(_search(client, experiment, "= 'FINISHED'", tags), key=_seniority, default=None)


def only_one(client: "MlflowClient", experiment: str, bundle: str) -> "Run | None":
    """Deletes all finished runs of a bundle except the first, and returns that one.

    Two clones of a project may send the same result at the same time. The last to end its run sees all of them, and
    all choose the same one, so exactly one remains.
    """
    found = sorted(_search(client, experiment, "= 'FINISHED'", {"bundle": bundle}), key=_seniority)
    for duplicate in found[1:]:
        client.delete_run(duplicate.info.run_id)
    return found[0] if found else None


def _seniority(run: "Run") -> tuple[bool, int, str]:
    """Evaluated runs first: a version may come from one."""
    return EVALUATION not in run.data.tags, int(run.info.start_time), str(run.info.run_id)


def unfinished(
    client: "MlflowClient", experiment: str, candidate: str, training_digest: str, root: Path
) -> "list[Run]":
    """Interrupted runs of the same training, without those that another process still writes to.

    There can be several: if the response to a run's creation is lost, the request is sent again.
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
    """Makes this process the owner of an interrupted run."""
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    client.update_run(run_id, status="RUNNING")


def end_leftovers(client: "MlflowClient", experiment: str) -> list[str]:
    """Ends this machine's runs whose process has died, as KILLED; returns their ids."""
    ids = [run.info.run_id for run in leftovers(client, experiment)]
    for run_id in ids:
        client.set_terminated(run_id, "KILLED")
    return ids


def leftovers(client: "MlflowClient", experiment: str) -> "list[Run]":
    """Runs of this machine in state RUNNING whose process has died."""
    return [run for run in running(client, experiment) if has_lost_owner(run)]


def running(client: "MlflowClient", experiment: str) -> "list[Run]":
    """Runs in state RUNNING, of any machine."""
    return list(client.search_runs([experiment], "attributes.status = 'RUNNING'"))


def has_lost_owner(run: "Run") -> bool:
    """Whether the run's process has certainly ended; one of another machine may be alive."""
    owner = ProcessIdentity.parse(run.data.tags.get(PROCESS, ""))
    return owner is not None and owner.is_gone
