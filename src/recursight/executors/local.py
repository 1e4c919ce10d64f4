"""Runs stages as processes of this machine: started by DVC, ended as a group, never twice at the same time.

If dvc or the flow is killed with SIGKILL, the stage's own process survives, and a rerun would write the same files at
the same time. So a stage watches the processes that started it, and holds a lock that the system releases however it
ends.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from recursight import commands, processes
from recursight.errors import InputError
from recursight.executors import clone
from recursight.executors.clone import FLOW
from recursight.executors.contract import StageFailed, StageRefused
from recursight.layout import Layout
from recursight.processes import ProcessIdentity

DVC_IS_BUSY = ("is busy", "Unable to acquire lock", "database is locked")
BUSY_SECONDS = 60.0
GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL
CHECK_SECONDS = 0.5
ORPHAN_SECONDS = 20.0
SHELLS = {"sh", "dash", "bash", "zsh", "fish", "ksh"}
REFUSED = re.compile(r"exited with 2\b")


class LocalExecutor:
    """Runs `dvc repro --single-item`, each in a process group of its own."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()

    def run(self, root: Path, stage: str, *, timeout_seconds: float) -> Iterator[str]:
        deadline = time.monotonic() + BUSY_SECONDS
        pause = 0.2
        while True:
            output: list[str] = []
            if (yield from self._run(root, stage, timeout_seconds, output)) == 0:
                return
            text = "\n".join(output)
            # dvc.lock and its database are written by one process at a time, and DVC waits 3 s only.
            if any(sign in text for sign in DVC_IS_BUSY) and time.monotonic() < deadline:
                time.sleep(pause)
                pause = min(2 * pause, 5.0)
                continue
            if REFUSED.search(text):
                raise StageRefused(_reason(output))
            raise StageFailed(f"{stage}: {_reason(output)}")

    def _run(self, root: Path, stage: str, timeout_seconds: float, output: list[str]) -> Generator[str, None, int]:
        """Yields lines, keeps them in `output`, and returns the exit status."""
        process = subprocess.Popen(
            [sys.executable, "-m", "recursight.executors.dvc", _flow_name(), "repro", "--single-item", stage],
            cwd=root,
            env=commands.environment() | flow_mark(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that the whole group can be ended
        )
        self._running.add(process)
        assert process.stdout is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            _end([process], GRACE_SECONDS)

        timer = threading.Timer(timeout_seconds, expire)
        timer.start()
        try:
            for line in process.stdout:
                output.append(line.rstrip())
                yield output[-1]
            code = process.wait()
            if expired.is_set():
                output.append(f"it took longer than {timeout_seconds:.0f} s and was ended.")
            return code
        finally:
            timer.cancel()
            self._running.discard(process)
            if process.poll() is None:
                _end([process], GRACE_SECONDS)
                process.wait()
            process.stdout.close()

    def end_all(self, grace_seconds: float) -> None:
        _end(list(self._running), grace_seconds)


def _end(stages: list[subprocess.Popen[str]], grace_seconds: float) -> None:
    """Ends all processes of some stages (dvc, training, recorder): SIGTERM, and after a grace period SIGKILL."""
    members = [member for stage in stages for member in _members(stage.pid)]
    for sign, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
        for stage in stages:
            with suppress(ProcessLookupError):
                os.killpg(stage.pid, sign)
        deadline = time.monotonic() + seconds
        _, members = psutil.wait_procs(members, timeout=seconds)
        for stage in stages:
            with suppress(subprocess.TimeoutExpired):
                stage.wait(max(0.01, deadline - time.monotonic()))
        if not members and all(stage.poll() is not None for stage in stages):
            return


def _flow_name() -> str:
    return f"{processes.describe(psutil.Process())}: dvc"


def _members(group: int) -> Iterator[psutil.Process]:
    """The processes of a group without its leader, which its parent waits for."""
    return processes.find(lambda process: process.pid != group and os.getpgid(process.pid) == group)


def _reason(output: list[str]) -> str:
    """The stage's own sentences if it printed any, else the last line."""
    own = [line.removeprefix("recursight: ") for line in output if line.startswith("recursight: ")]
    return "\n".join(own) or next((line for line in reversed(output) if line.strip()), "no output")


def flow_mark() -> dict[str, str]:
    """The environment variable with the flow of this process, for stages and all processes that they start."""
    return {FLOW: str(ProcessIdentity.of())}


def started_by_flow() -> bool:
    """Whether a flow started this process; it then sends all results to the tracking store together."""
    return FLOW in os.environ


@contextmanager
def exclusive_lock(layout: Layout, work: str) -> Iterator[None]:
    """Does work that ends with the processes that started it, and never runs twice at the same time.

    Args:
        layout: of the project.
        work: such as `train@gru`.

    Raises:
        InputError: if a flow of another process runs in this project, or if another process does the same work and
            has not ended within the time that an orphan needs to end itself.
    """
    exit_with_parent()
    if not started_by_flow():
        clone.require_free(layout)
    path = layout.lock(work)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(path), path.with_suffix(".holder")
    try:
        lock.acquire(timeout=ORPHAN_SECONDS)
    except Timeout:
        found = ProcessIdentity.parse(holder.read_text()) if holder.is_file() else None
        other = found.name if found else "another process"
        raise InputError(f"{work}: {other} is doing the same; wait for it to end, or end it.") from None
    try:
        holder.write_text(str(ProcessIdentity.of()))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def lock_holders(layout: Layout) -> Iterator[tuple[Path, ProcessIdentity]]:
    """Which process holds which lock of `exclusive_lock`; after a kill, also of processes that have ended."""
    for note in layout.lock("any").parent.glob("*.holder"):
        with suppress(OSError):
            if identity := ProcessIdentity.parse(note.read_text()):
                yield note, identity


def exit_with_parent() -> None:
    """Ends this process soon after dvc or the flow that started it has ended."""
    flow = ProcessIdentity.parse(os.environ.get(FLOW, ""))
    if flow and not flow.is_alive:
        sys.exit("recursight: the flow that started this has ended.")
    starters = [starter for starter in (_dvc(), flow) if starter and starter != ProcessIdentity.of()]
    if starters:
        threading.Thread(target=_watch, args=(starters,), daemon=True, name="exit-with-parent").start()


def _dvc() -> ProcessIdentity | None:
    """The dvc process that runs this stage, perhaps through a shell."""
    if "DVC_STAGE" not in os.environ:
        return None
    parent = psutil.Process().parent()
    if parent and parent.name() in SHELLS:
        parent = parent.parent()
    return ProcessIdentity.of(parent.pid) if parent else None


def has_lost_its_dvc(identity: ProcessIdentity) -> bool:
    """Whether dvc started a process, and has ended."""
    process = identity.process
    with suppress(psutil.Error, OSError):
        if process and "DVC_STAGE" in process.environ():
            return not any("dvc" in Path(word).name for parent in process.parents() for word in parent.cmdline()[:4])
    return False


def _watch(starters: list[ProcessIdentity]) -> None:
    while all(starter.is_alive for starter in starters):
        time.sleep(CHECK_SECONDS)
    # In another thread: the pipe may be closed, or full without a reader.
    threading.Thread(target=_explain, daemon=True).start()
    time.sleep(CHECK_SECONDS)
    os._exit(1)  # not sys.exit: this is a thread, and all files are replaced in one rename


def _explain() -> None:
    with suppress(OSError, ValueError):
        print("recursight: the process that started this work has ended, so it ends too.", file=sys.stderr, flush=True)
