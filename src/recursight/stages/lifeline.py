"""The lifeline of a stage: it ends when whoever asked for its work is gone, and never works beside itself.

SIGKILL of dvc or of the flow leaves the stage's own process running. A rerun would then work beside it on the same
files. So a stage watches those that started it, and holds a lock which the system releases however it ends.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from recursight.errors import InputError

FLOW = "RECURSIGHT_FLOW"  # set by the flow for its stages: "pid:time of start"
SHELLS = {"sh", "dash", "bash", "zsh", "fish", "ksh"}
CHECK_SECONDS = 0.5
ORPHAN_SECONDS = 20.0


@contextmanager
def alone(lock_path: Path) -> Iterator[None]:
    """Does some work tied to those that asked for it, and never twice at once.

    Args:
        lock_path: a file that stands for the work, and is named like it.

    Raises:
        InputError: if another process still does this work after the time in which an orphan ends itself.
    """
    tie_to_starters()
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(lock_path), lock_path.with_suffix(".pid")
    try:
        lock.acquire(timeout=ORPHAN_SECONDS)
    except Timeout:
        pid = holder.read_text().strip() if holder.is_file() else "unknown"
        raise InputError(
            f"{lock_path.stem}: another process (pid {pid}) is at the same work; wait for it, or end it."
        ) from None
    try:
        holder.write_text(str(os.getpid()))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def tie_to_starters() -> None:
    """Ends this process soon after dvc or the flow that started it has ended."""
    starters = [starter for starter in (_dvc(), _flow()) if starter]
    if starters:
        threading.Thread(target=_watch, args=(starters,), daemon=True, name="lifeline").start()


def mark_flow() -> dict[str, str]:
    """The environment by which a stage recognises the flow that this process is."""
    return {FLOW: f"{os.getpid()}:{psutil.Process().create_time()}"}


def in_a_flow() -> bool:
    """Whether a flow asked for this work; it then sends all results to the tracking store together."""
    return FLOW in os.environ


def _dvc() -> psutil.Process | None:
    """The dvc that runs this stage, past a shell that stands between."""
    if "DVC_STAGE" not in os.environ:
        return None
    parent = psutil.Process().parent()
    if parent and parent.name() in SHELLS:
        parent = parent.parent()
    return parent


def _flow() -> psutil.Process | None:
    if FLOW not in os.environ:
        return None
    pid, started = os.environ[FLOW].split(":")
    try:
        process = psutil.Process(int(pid))
        if process.create_time() == float(started):
            return process
    except psutil.NoSuchProcess:
        pass
    sys.exit("recursight: the flow that asked for this work has ended.")


def _watch(starters: list[psutil.Process]) -> None:
    while all(starter.is_running() and starter.status() != psutil.STATUS_ZOMBIE for starter in starters):
        time.sleep(CHECK_SECONDS)
    print("recursight: whoever asked for this work has ended; so does the work.", file=sys.stderr, flush=True)
    os._exit(1)  # not sys.exit: this is a thread, and all files are replaced in one rename
