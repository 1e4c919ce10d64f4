"""Who runs a flow: host, process and its start time, noted where the next one finds it after a kill.

A process that runs flows of a project leaves three signs. A file in `.recursight/flows/` lives as long as it does. Its
flow runs carry its tag in Prefect. What it starts carries its mark in the environment. After SIGKILL the signs lead
from the dead process to all that it left, and to nothing else.
"""

import atexit
import os
from dataclasses import asdict
from pathlib import Path

import psutil

from recursight.files import read_json, write_json
from recursight.layout import Layout
from recursight.tracking.runs import Owner

MARK = "RECURSIGHT_FLOW_PROCESS"  # pid:time of start
TAG = "process "


def enlist(layout: Layout) -> Owner:
    """Notes that this process runs flows of the project, until it ends."""
    owner = Owner.process(layout.root)
    path = _file(layout, owner)
    if os.environ.get(MARK) != mark(owner) or not path.exists():
        write_json(path, asdict(owner))
        os.environ[MARK] = mark(owner)
        atexit.register(path.unlink, missing_ok=True)
    return owner


def leave(layout: Layout) -> None:
    """Takes this process's file away, where it ends without Python's own end."""
    _file(layout, Owner.process(layout.root)).unlink(missing_ok=True)


def departed(layout: Layout) -> dict[Path, Owner]:
    """Processes that ended without taking their file away, by that file."""
    found = {}
    for path in folder(layout).glob("[!.]*.json"):
        try:
            owner = Owner(**read_json(path))
        except (FileNotFoundError, ValueError, TypeError):  # just taken away; not ours
            continue
        if owner.is_gone:
            found[path] = owner
    return found


def folder(layout: Layout) -> Path:
    return layout.state / "flows"


def _file(layout: Layout, owner: Owner) -> Path:
    return folder(layout) / f"{owner.host}.{owner.pid}.json"


def mark(owner: Owner) -> str:
    return f"{owner.pid}:{owner.started}"


def tag(owner: Owner) -> str:
    """What a flow run carries in Prefect."""
    return f"{TAG}{owner.host}:{owner.pid}:{owner.started:.2f}"


def of_tags(tags: list[str]) -> Owner | None:
    """The owner of a flow run; None if its tags name none."""
    for each in tags:
        host, _, rest = each.removeprefix(TAG).rpartition(":")[0].rpartition(":")
        started = each.rpartition(":")[2]
        if each.startswith(TAG) and rest.isdigit():
            return Owner(host, int(rest), float(started), "")
    return None


def is_alive(pid: int, since: float) -> bool:
    """Whether a process that was alive at a moment (seconds since 1970) lives, and not a later one of its number."""
    try:
        process = psutil.Process(pid)
        return bool(process.create_time() <= since + 1 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
