"""Processes that stay: started in the background, found again, and ended for certain.

A process is known by its number and the moment it started, so nobody else's is ever touched. Its descendants carry a
mark in their environment, so that they are found even where their parent was killed.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import psutil

from recursight import access
from recursight.access import Running
from recursight.files import write_json
from recursight.layout import Layout

MARK = "RECURSIGHT_SERVERS_OF"  # the project's folder
NAME = "RECURSIGHT_SERVER"  # which of them
LARGEST_LOG_BYTES = 20_000_000


def log_of(layout: Layout, name: str) -> Path:
    return layout.state / "logs" / f"{name}.log"


def start(layout: Layout, name: str, command: list[str], environment: dict[str, str], url: str | None) -> Running:
    """Starts a process of its own session, and notes it; what it prints is appended to its log."""
    log = log_of(layout, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LARGEST_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=layout.root,
            env=environment | {MARK: str(layout.root), NAME: name},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C in the terminal that started it is not meant for it
        )
    started = Running(process.pid, psutil.Process(process.pid).create_time(), url)
    write_json(access.folder(layout) / f"{name}.json", asdict(started))
    return started


def stop(layout: Layout, name: str) -> bool:
    """Ends a process and its descendants, and forgets it; whether it was alive."""
    known = access.running(layout, name)
    lived = known is not None and known.lives
    if known is not None and lived:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(known.pid)
            descendants = root.children(recursive=True)
            end([root])
            end(descendants)
    (access.folder(layout) / f"{name}.json").unlink(missing_ok=True)
    return lived


def end(processes: Iterable[psutil.Process], patience_seconds: tuple[float, ...] = (6.0, 4.0)) -> None:
    """SIGTERM, again SIGTERM (a worker may need a second one), then SIGKILL; returns once all are gone."""
    left = list(processes)
    for seconds in patience_seconds:
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, left = psutil.wait_procs(left, timeout=seconds)
        if not left:
            return
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=10)


def descendants(layout: Layout, name: str | None = None) -> list[psutil.Process]:
    """Every process that one of this project's servers or its worker has started, and they themselves.

    Args:
        layout: of the project.
        name: of the one that is meant; by default all.
    """
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid in own:
                continue
            marks = process.environ()
            if marks.get(MARK) == str(layout.root) and name in (None, marks.get(NAME)):
                found.append(process)
    return found


def holder_of(port: int) -> str:
    """Who listens on a port of this machine, for a sentence."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid is None:
                    break
                command = " ".join(psutil.Process(connection.pid).cmdline())
                return f"process {connection.pid} (`{command[:120]}`)"
    return "another program"


def last_lines(path: Path, count: int = 8) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return "\n".join(lines[-count:])
