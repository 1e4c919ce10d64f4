"""What killed processes left: found, told, and cleared away.

Each kind has one function. It finds what surely belongs to the dead, of this machine and this project, and clears it
unless it is only to look. What lives, or may live, is never touched.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from recursight import access
from recursight.data.versions import Workshop
from recursight.errors import InputError
from recursight.files import left_behind, put_right
from recursight.layout import Layout
from recursight.operations import dvc_locks, flow_runs, owners, processes
from recursight.operations.flow_runs import Prefect
from recursight.params import load
from recursight.tracking.connection import PATIENT

GRACE_SECONDS = (3.0,)  # for an orphan between SIGTERM and SIGKILL
DEPTH = 3  # of folders below artifacts/ and .recursight/ in which targets lie
NOT_OURS = {"restored", "prefect", "logs", "downloads", "import"}  # of .recursight: kept whole by others
SECRETS = ("prefect.toml", "logins.json")


@dataclass(frozen=True)
class Dead:
    """Something that a killed process left.

    Attributes:
        kind: `process`, `flow run`, `MLflow run`, `decision`, `file`, `lock` or `import`.
        what: which, in a few words.
    """

    kind: str
    what: str


def begin(layout: Layout) -> list[Dead]:
    """At the start of a flow, in its process: notes it as the owner, and clears what earlier ones left.

    MLflow runs and decisions are left to `mlflow_runs` and `decisions`, since MLflow takes seconds to import.

    Returns:
        What was cleared.
    """
    from prefect.runtime import flow_run

    owner = owners.enlist(layout)
    dead = on_this_machine(layout, clear=True)
    with suppress(OSError, ValueError), flow_runs.prefect_of_flows() as prefect:
        flow_runs.sign(prefect, flow_run.id, flow_run.tags, owner)
        dead += runs_of_flows(layout, prefect, clear=True)
    return dead


def own_tag(layout: Layout) -> str:
    """The tag of the flow runs that this process begins."""
    return owners.tag(owners.enlist(layout))


def on_this_machine(layout: Layout, clear: bool) -> list[Dead]:
    """Processes, files and notes of locks; no server is asked. The processes first: they hold the rest."""
    kinds: list[Callable[[Layout, bool], list[Dead]]] = [orphans, notes_of_locks, half_files, half_imports]
    return [dead for kind in kinds for dead in kind(layout, clear)]


def orphans(layout: Layout, clear: bool) -> list[Dead]:
    """Processes that outlived the flow, or the dvc, that started them."""
    departed = owners.departed(layout)
    found = _started_by({owners.mark(owner) for owner in departed.values()}) if departed else []
    found += [process for process in _at_work(layout) if process not in found and _has_lost_its_dvc(process)]
    dead = [Dead("process", f"{process.pid} ({_name(process)})") for process in found]
    if clear:
        processes.end(found, GRACE_SECONDS)
        for path in departed:
            path.unlink(missing_ok=True)
    return dead


def runs_of_flows(layout: Layout, prefect: Prefect, clear: bool) -> list[Dead]:
    """Flow runs that count as running; raises OSError if the server does not answer well."""
    dead = []
    for run in flow_runs.dead(prefect, layout):
        dead.append(Dead("flow run", f"{run['name']}, {run['state']['name']} since {run['state']['timestamp'][:19]}"))
        if clear:
            flow_runs.end(prefect, run)
    return dead


def mlflow_runs(layout: Layout, clear: bool, http: dict[str, str] = PATIENT) -> list[Dead]:
    """Trainings that MLflow shows as running.

    Raises:
        Unreachable: if it does not answer.
    """
    from recursight.tracking import connect, runs

    client = connect(layout, http)
    experiment = client.get_experiment_by_name(load(layout.params).registry.experiment)
    dead = runs.dead_runs(client, experiment.experiment_id) if experiment else []
    if clear:
        for run in dead:
            client.set_terminated(run.info.run_id, "KILLED")
    return [Dead("MLflow run", f"{run.info.run_name} ({run.info.run_id[:8]})") for run in dead]


def decisions(layout: Layout, clear: bool, http: dict[str, str] = PATIENT) -> list[Dead]:
    """Decisions on the champion that were written, and not carried out.

    Raises:
        Unreachable: if MLflow does not answer.
    """
    from recursight.registry.decisions import settle, unsettled
    from recursight.registry.promote import alias_lock
    from recursight.tracking import connect

    name, client = load(layout.params).registry.model_name, connect(layout, http)
    dead = [Dead("decision", str(run.info.run_name)) for run in unsettled(client, name)]
    if clear and dead:
        with alias_lock(layout):
            settle(client, layout, name)
    return dead


def notes_of_locks(layout: Layout, clear: bool) -> list[Dead]:
    """Who held a lock, where that process is gone. The locks themselves the system has opened already."""
    dead = [Dead("lock", f"of DVC, {whose}") for whose in dvc_locks.dead_notes(layout, clear)]
    for note, pid in _notes(layout):
        if not owners.is_alive(pid, note.stat().st_mtime):
            dead.append(Dead("lock", f"{note.stem}, of process {pid}"))
            if clear:
                note.unlink(missing_ok=True)
    return dead


def half_files(layout: Layout, clear: bool) -> list[Dead]:
    """Files and folders that were being written."""
    dead = []
    begun: list[Path] = []
    for folder in _folders(layout):
        with suppress(FileNotFoundError):
            begun += left_behind(folder)
    for staging in begun:
        dead.append(Dead("file", str(staging.relative_to(layout.root))))
        if clear:
            put_right(staging)
    for path in _half_written(layout):
        dead.append(Dead("file", str(path.relative_to(layout.root))))
        if clear:
            path.unlink(missing_ok=True)
    return dead


def half_imports(layout: Layout, clear: bool) -> list[Dead]:
    """Data that was being brought; if data/ was already away, it comes back."""
    workshop, dead = Workshop(layout), []
    if workshop.folder.exists() and _is_free(layout.lock("import")):
        dead.append(Dead("import", str(workshop.folder.relative_to(layout.root))))
        if clear:
            with suppress(InputError), workshop:  # it puts right what it finds; another one has begun: so will that
                pass
    unpacked = list(layout.state.glob("source-*"))
    if unpacked and not _an_import_runs():
        for folder in unpacked:
            dead.append(Dead("import", str(folder.relative_to(layout.root))))
            if clear:
                shutil.rmtree(folder, ignore_errors=True)
    return dead


def _started_by(marks: set[str]) -> list[psutil.Process]:
    own = {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid not in own and process.environ().get(owners.MARK) in marks and _lives(process):
                found.append(process)
    return found


def _at_work(layout: Layout) -> Iterator[psutil.Process]:
    """Processes that hold the lock of a stage."""
    for note, pid in _notes(layout):
        with suppress(psutil.Error, OSError):
            if owners.is_alive(pid, note.stat().st_mtime) and not _is_free(note.with_suffix(".lock")):
                yield psutil.Process(pid)


def _has_lost_its_dvc(process: psutil.Process) -> bool:
    """Whether dvc started a process, and is gone."""
    with suppress(psutil.Error, OSError):
        if "DVC_STAGE" not in process.environ():
            return False
        return not any("dvc" in Path(word).name for parent in process.parents() for word in parent.cmdline()[:4])
    return False


def _lives(process: psutil.Process) -> bool:
    return bool(process.status() != psutil.STATUS_ZOMBIE)


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        words = [Path(word).name if "/" in word else word for word in process.cmdline()]
        return " ".join(words)[:60]
    return "?"


def _notes(layout: Layout) -> Iterator[tuple[Path, int]]:
    """Who says to hold a stage's lock."""
    for note in layout.lock("any").parent.glob("*.pid"):
        with suppress(OSError, ValueError):
            yield note, int(note.read_text())


def _is_free(lock: Path) -> bool:
    if not lock.exists():
        return True
    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False


def _folders(layout: Layout) -> Iterator[Path]:
    """Where `files.replacing` is at work."""
    yield layout.root
    waiting = [(layout.artifacts, 0), (layout.state, 0)]
    while waiting:
        folder, depth = waiting.pop()
        if not folder.is_dir():
            continue
        yield folder
        if depth == DEPTH:
            continue
        with suppress(FileNotFoundError):  # a stage that is at work may replace it now
            below = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
            waiting += [(path, depth + 1) for path in below if not (folder == layout.state and path.name in NOT_OURS)]


def _half_written(layout: Layout) -> Iterator[Path]:
    """Checkpoints whose training is not at work, and secrets whose writer is gone."""
    for path in (layout.state / "checkpoints").glob("*/*.partial"):
        if _is_free(layout.lock(f"train@{path.parent.name}")):
            yield path
    for folder in (layout.root, access.folder(layout)):
        for path in (path for name in SECRETS for path in folder.glob(f".{name}.*")):
            pid = path.name.rpartition(".")[2]
            if pid.isdigit() and not owners.is_alive(int(pid), path.stat().st_mtime):
                yield path


def _an_import_runs() -> bool:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if {"data", "import"} <= set(process.cmdline()):
                return True
    return False
