"""Checks whether a pipeline has anything to do, without Prefect and, if possible, without MLflow.

Importing MLflow takes seconds. Therefore, when tracking and registry were found complete, a file in `.recursight/` has
a digest of everything that this depends on, MLflow's database files included. They are complete while it is unchanged.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from recursight.files import digest, read_json, write_json
from recursight.layout import Layout
from recursight.provenance import code_digest
from recursight.tracking import Unreachable, attempt_sync, connect, pending, runs
from recursight.tracking.connection import database, registry_uri, tracking_uri
from recursight.tracking.results import results

PACKAGE = Path(__file__).parents[1]


def nothing_to_run(layout: Layout) -> bool:
    """Whether every stage of dvc.yaml is unchanged and there are no leftovers of killed processes.

    Also False if DVC fails; the pipeline then reports why.

    Raises:
        InputError: if another flow runs in this clone.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    from recursight.executors import clone
    from recursight.operations import cleanup

    clone.require_free(layout)
    if clone.stale(layout) or cleanup.on_this_machine(layout, clear=False):
        return False
    try:
        with Repo(str(layout.root)) as repo:
            stages = {stage.addressing for stage in repo.index.stages if stage.cmd}
            return stages.isdisjoint(repo.status())
    except DvcException:
        return False


def complete(layout: Layout) -> dict[str, Any] | None:
    """Sends missing results to the tracking store and registers the winner, unless both are known to be done.

    Returns:
        The fields of `registry.Registered`, of the winner; None if MLflow does not answer.
    """
    known = _noted(layout)
    if known is not None:
        return known
    registered = _sync_and_register(layout)
    if registered is not None:
        note(layout)
    return registered


def note(layout: Layout) -> None:
    """Completes tracking and registry, and records that if nothing can be missing afterwards."""
    state = _state(layout)
    if state is None:
        return
    registered = _sync_and_register(layout)
    if registered is not None and _state(layout) == state and not _trainings_shown(layout):
        write_json(_path(layout), {"state": state, "registered": registered})


def _sync_and_register(layout: Layout) -> dict[str, Any] | None:
    from recursight.registry import register

    try:
        return asdict(register(layout)) if attempt_sync(layout) else None
    except Unreachable:
        return None


def _noted(layout: Layout) -> dict[str, Any] | None:
    """The registered winner of the last check, if nothing has changed since."""
    try:
        noted: dict[str, Any] = read_json(_path(layout))
        state, registered = noted["state"], dict(noted["registered"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return registered if state == _state(layout) else None


def _state(layout: Layout) -> str | None:
    """A digest of everything that determines whether tracking and registry are complete.

    None if only MLflow knows: its store is not an SQLite file, or results are still to be sent.
    """
    files = [database(uri) for uri in (tracking_uri(layout), registry_uri(layout)) if uri.startswith("sqlite:///")]
    comparison = layout.comparison / "comparison.json"
    if len(files) < 2 or not all(file.is_file() for file in (*files, comparison)) or pending.kept(layout):
        return None
    return digest(
        {
            "results": [[str(result.bundle), result.digest, result.evaluation_digest] for result in results(layout)],
            "comparison": read_json(comparison),
            "params": layout.params.read_text(encoding="utf-8"),
            "stores": [_stamp(Path(f"{file}{suffix}")) for file in files for suffix in ("", "-journal", "-wal")],
            "code": code_digest(PACKAGE),
        }
    )


def _stamp(file: Path) -> list[Any]:
    """A value that changes when a file is written or replaced."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return [str(file)]
    return [str(file.resolve()), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _trainings_shown(layout: Layout) -> bool:
    """Whether MLflow shows running trainings; if one was killed, its run must still be ended."""
    from recursight.params import load

    client = connect(layout)
    experiment = client.get_experiment_by_name(load(layout.params).registry.experiment)
    return experiment is not None and bool(runs.running(client, experiment.experiment_id))


def _path(layout: Layout) -> Path:
    return layout.state / "tracking" / "complete.json"
