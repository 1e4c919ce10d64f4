"""Only one process at a time runs flows in a clone.

It holds a lock, which the system releases however the process ends, and it can be identified by three records: a file
in `.recursight/flows/`, which it removes at its end; a tag on its flow runs in Prefect; an environment variable of
every process that it starts. After SIGKILL they identify everything that it left behind.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from recursight import processes
from recursight.errors import InputError
from recursight.files import read_json, write_json
from recursight.layout import Layout
from recursight.processes import ProcessIdentity

FLOW = "RECURSIGHT_FLOW_PROCESS"  # environment variable with the flow's ProcessIdentity
CLAIM_SECONDS = 0.5  # waits this long for a flow that is about to end
COPIES = {".dvc", ".recursight"}  # folders with copies of the project, whose commands do no harm


@contextmanager
def claim(layout: Layout) -> Iterator[ProcessIdentity]:
    """Reserves the clone for the flows of this process, which may be nested.

    Raises:
        InputError: if a flow of another process or a `dvc repro` is running here; the message names it.
    """
    path = layout.lock("flow")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, is_singleton=True, thread_local=False)
    try:
        lock.acquire(timeout=CLAIM_SECONDS)
    except Timeout:
        require_free(layout)
        raise InputError("this project is in use by another flow; wait for it to end.") from None
    identity = ProcessIdentity.of()
    try:
        if lock.lock_counter == 1:
            _require_no_dvc(layout)
            write_json(_file(layout, identity), asdict(identity))
            os.environ[FLOW] = str(identity)
        yield identity
    finally:
        if lock.lock_counter == 1:
            release(layout)
        lock.release()


def release(layout: Layout) -> None:
    """Removes the records of this process."""
    _file(layout, ProcessIdentity.of()).unlink(missing_ok=True)
    os.environ.pop(FLOW, None)


def require_free(layout: Layout) -> None:
    """Raises InputError if another process runs a flow in this clone."""
    for _, identity in _registered(layout):
        process = identity.process
        if process and identity != ProcessIdentity.of():
            raise InputError(_in_use(process))


def stale(layout: Layout) -> dict[Path, ProcessIdentity]:
    """Flow processes that ended without removing their file, by that file."""
    return {path: identity for path, identity in _registered(layout) if identity.is_gone}


def folder(layout: Layout) -> Path:
    return layout.state / "flows"


def _registered(layout: Layout) -> Iterator[tuple[Path, ProcessIdentity]]:
    for path in folder(layout).glob("[!.]*.json"):
        try:
            yield path, ProcessIdentity(**read_json(path))
        except (FileNotFoundError, ValueError, TypeError):  # just removed, or not written by us
            continue


def _file(layout: Layout, identity: ProcessIdentity) -> Path:
    return folder(layout) / f"{identity.host}.{identity.pid}.json"


def _require_no_dvc(layout: Layout) -> None:
    """Raises InputError if `dvc repro` or `dvc exp run` is running in this clone."""

    def is_meant(process: psutil.Process) -> bool:
        words = [Path(word).name for word in process.cmdline()[:5]]
        asked = words[words.index("dvc") + 1 :] if "dvc" in words[:3] else []
        if asked[:1] != ["repro"] and asked[:2] != ["exp", "run"]:
            return False
        place = Path(process.cwd())
        inside = place.is_relative_to(layout.root) and not COPIES & set(place.relative_to(layout.root).parts[:1])
        return inside and FLOW not in process.environ()

    for process in processes.find(is_meant):
        raise InputError(_in_use(process))


def _in_use(process: psutil.Process) -> str:
    return f"this project is in use: {processes.describe(process)}; wait for it to end, or stop it."
