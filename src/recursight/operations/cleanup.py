"""Clean-up: finds, reports and removes what killed processes left behind.

Each kind of leftover has one function. It finds leftovers of processes of this machine and project that have certainly
ended, and removes them if `clear`. Anything that may still be in use is never touched.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from recursight import commands, processes
from recursight.data.versions import Workshop
from recursight.errors import InputError
from recursight.executors import clone, local
from recursight.files import left_behind, recover, target_of
from recursight.layout import Layout
from recursight.operations import dvc_locks, flow_runs
from recursight.operations.prefect_api import PrefectApi
from recursight.params import load
from recursight.tracking.connection import PATIENT

GRACE_SECONDS = (3.0,)  # for an orphan between SIGTERM and SIGKILL
DEPTH = 3  # of folders below artifacts/ and .recursight/ that contain targets
NOT_OURS = {"restored", "prefect", "logs", "downloads", "import"}  # of .recursight: other code cleans them up


@dataclass(frozen=True)
class Leftover:
    """Something that a killed process left.

    Attributes:
        kind: `process`, `flow run`, `MLflow run`, `decision`, `file`, `lock`, `import` or `restore`.
        what: which one, in a few words.
    """

    kind: str
    what: str


def begin(layout: Layout) -> list[Leftover]:
    """Removes leftovers at the start of a flow, in the process that has claimed the clone.

    Those in MLflow are left to `mlflow_runs` and `decisions`, since MLflow takes seconds to import.
    """
    from prefect.runtime import flow_run

    found = on_this_machine(layout, clear=True)
    prefect = PrefectApi.configured()
    if prefect:
        with suppress(OSError, ValueError):
            flow_runs.sign(prefect, flow_run.id, flow_run.tags)
            found += runs_of_flows(layout, prefect, clear=True)
    return found


def on_this_machine(layout: Layout, clear: bool) -> list[Leftover]:
    """Leftovers that are found without a server."""
    return [leftover for kind in KINDS for leftover in kind(layout, clear)]


def orphans(layout: Layout, clear: bool) -> list[Leftover]:
    """Processes that outlived the flow or the dvc that started them."""
    stale = clone.stale(layout)
    found = [process for flow in stale.values() for process in processes.carrying({clone.FLOW: str(flow)})]
    for note, holder in local.lock_holders(layout):
        process = holder.process
        lost = process and not _is_free(note.with_suffix(".lock")) and local.has_lost_its_dvc(holder)
        if process and lost and process not in found:
            found.append(process)
    leftovers = [Leftover("process", processes.describe(process).removeprefix("process ")) for process in found]
    if clear:
        processes.end(found, GRACE_SECONDS)
        for path in stale:
            path.unlink(missing_ok=True)
    return leftovers


def runs_of_flows(layout: Layout, prefect: PrefectApi, clear: bool) -> list[Leftover]:
    """Flow runs that Prefect shows as running; raises OSError if its server does not answer."""
    leftovers = []
    for run in flow_runs.leftovers(prefect, layout):
        what = f"{run['name']}, {run['state']['name']} since {run['state']['timestamp'][:19]}"
        leftovers.append(Leftover("flow run", what))
        if clear:
            flow_runs.end(prefect, run)
    return leftovers


def mlflow_runs(layout: Layout, clear: bool, http: dict[str, str] = PATIENT) -> list[Leftover]:
    """Runs of trainings that MLflow shows as running.

    Raises:
        Unreachable: if it does not answer.
    """
    from recursight.tracking import connect, runs

    client = connect(layout, http)
    experiment = client.get_experiment_by_name(load(layout.params).registry.experiment)
    found = runs.leftovers(client, experiment.experiment_id) if experiment else []
    if clear:
        for run in found:
            client.set_terminated(run.info.run_id, "KILLED")
    return [Leftover("MLflow run", f"{run.info.run_name} ({run.info.run_id[:8]})") for run in found]


def decisions(layout: Layout, clear: bool, http: dict[str, str] = PATIENT) -> list[Leftover]:
    """Decisions on the champion that were recorded but not carried out.

    Raises:
        Unreachable: if MLflow does not answer.
    """
    from recursight.registry.decisions import settle, unsettled
    from recursight.registry.promote import alias_lock
    from recursight.tracking import connect

    name, client = load(layout.params).registry.model_name, connect(layout, http)
    found = [Leftover("decision", str(run.info.run_name)) for run in unsettled(client, name)]
    if clear and found:
        with alias_lock(layout):
            settle(client, name)
    return found


def notes_of_locks(layout: Layout, clear: bool) -> list[Leftover]:
    """Notes on who holds a lock, of processes that have ended; the system has released the locks themselves."""
    found = [Leftover("lock", f"of DVC, {whose}") for whose in dvc_locks.stale_notes(layout, clear)]
    for note, holder in local.lock_holders(layout):
        if holder.is_gone:
            found.append(Leftover("lock", f"{note.stem}, of {holder.name}"))
            if clear:
                note.unlink(missing_ok=True)
    return found


def half_files(layout: Layout, clear: bool) -> list[Leftover]:
    """Half-written files and folders."""
    found = []
    begun: list[Path] = []
    folders = list(_folders(layout))
    for folder in folders:
        with suppress(FileNotFoundError):
            begun += left_behind(folder)
    for staging in begun:
        found.append(Leftover("file", str(staging.relative_to(layout.root))))
        if clear:
            recover(staging)
    for path in _half_written(layout):
        found.append(Leftover("file", str(path.relative_to(layout.root))))
        if clear:
            path.unlink(missing_ok=True)
    copies = dvc_locks.half_copies(layout, [*folders, layout.data], clear)
    found += [Leftover("file", str(path.relative_to(layout.root))) for path in copies]
    if dvc_locks.broken_results(layout, clear):
        found.append(Leftover("file", "dvc.lock"))
    return found


def half_imports(layout: Layout, clear: bool) -> list[Leftover]:
    """Imports that were killed; what they changed of data/ and data.dvc is undone."""
    workshop = Workshop(layout)
    if not workshop.folder.exists() or not _is_free(layout.lock("import")):
        return []
    if clear:
        with suppress(InputError), workshop:  # entering undoes it; if another import has begun, that one did so
            pass
    return [Leftover("import", str(workshop.folder.relative_to(layout.root)))]


def half_restores(layout: Layout, clear: bool) -> list[Leftover]:
    """Restorations that were killed."""
    found = []
    folder = layout.state / "restored"
    for begun in list(left_behind(folder)) if folder.is_dir() else []:
        restored = target_of(begun)
        found.append(Leftover("restore", str(restored.relative_to(layout.root))))
        if clear:
            shutil.rmtree(restored, ignore_errors=True)
            commands.git(layout.root, "worktree", "prune")
            shutil.rmtree(begun, ignore_errors=True)
    return found


def _is_free(lock: Path) -> bool:
    if not lock.exists():
        return True
    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False


def _folders(layout: Layout) -> Iterator[Path]:
    """The folders in which `files.replacing` writes."""
    yield layout.root
    for root in (layout.artifacts, layout.state):
        for place, names, _ in os.walk(root):
            folder = Path(place)
            yield folder
            too_deep = len(folder.relative_to(root).parts) == DEPTH
            left_out = NOT_OURS if folder == layout.state else ()
            names[:] = [name for name in names if not (too_deep or name.startswith(".") or name in left_out)]


def _half_written(layout: Layout) -> Iterator[Path]:
    """Half-written checkpoints of trainings that do not run."""
    for path in (layout.state / "checkpoints").glob("*/*.partial"):
        if _is_free(layout.lock(f"train@{path.parent.name}")):
            yield path


# Processes first, since they use the rest.
KINDS: tuple[Callable[[Layout, bool], list[Leftover]], ...] = (
    orphans,
    notes_of_locks,
    half_files,
    half_imports,
    half_restores,
)
