"""DVC as the pipeline sees it: which stages there are, which have changed, and how to run one.

DVC owns the graph and the question what has changed. Nothing of either is known here a second time.
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from recursight.errors import InputError
from recursight.files import read_json
from recursight.layout import Layout
from recursight.stages.lifeline import mark_flow

BUSY = ("is busy", "Unable to acquire lock", "database is locked")
BUSY_SECONDS = 60.0
GRACE_SECONDS = 5.0  # between asking a stage to end and making it
_running: set[subprocess.Popen[str]] = set()
REFUSED = re.compile(r"exited with 2\b")


class StageFailed(RuntimeError):
    """A stage ended with an error that may pass: killed, out of memory, a full disk."""


class StageRefused(InputError):
    """A stage found its input wrong; to run it again changes nothing."""


def graph(root: Path) -> dict[str, set[str]]:
    """For each stage, the stages whose outputs it reads; in an order in which they can run.

    Raises:
        InputError: if dvc.yaml cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from networkx import topological_sort

    try:
        with Repo(str(root)) as repo:
            edges = repo.index.graph  # from a stage to those whose outputs it reads
            stages = [stage for stage in topological_sort(edges.reverse()) if stage.cmd]  # the rest is data
            return {stage.name: {above.name for above in edges.successors(stage) if above.cmd} for stage in stages}
    except DvcException as error:
        raise InputError(f"dvc.yaml: {' '.join(str(error).split())}") from None


def changed(root: Path, stages: dict[str, set[str]]) -> set[str]:
    """The stages that have changed, and all that read from them.

    Raises:
        InputError: if DVC cannot tell.
    """
    found = set(status(root)) & set(stages)
    for stage, reads in stages.items():  # in order, so one pass carries a change all the way down
        if reads & found:
            found.add(stage)
    return found


def status(root: Path) -> dict[str, list[Any]]:
    """What has changed, as DVC tells it: for each stage and .dvc file that is not up to date, its changes.

    Raises:
        InputError: if DVC cannot tell.
    """
    command = [*_dvc(), "status", "--json"]
    told = subprocess.run(command, cwd=root, capture_output=True, text=True, env=_environment())
    if told.returncode:
        raise InputError(f"dvc status failed: {told.stderr.strip().removeprefix('ERROR: ')}")
    changes: dict[str, list[Any]] = json.loads(told.stdout)
    return changes


def longest_first(layout: Layout, stages: dict[str, set[str]]) -> dict[str, set[str]]:
    """The order to begin stages in, as far as what they read allows: a long training begun last is waited for alone.

    How long a candidate takes is told by its present bundles; one without any may take longest, and so comes before.
    What does not train is short: it comes last, and so fills what is left of the other processors while the last
    trainings end.
    """

    def seconds(stage: str) -> float:
        step, _, name = stage.partition("@")
        if step != "train":
            return 0
        accounts = list(layout.candidate(name).glob("seed-*/training.json"))
        with suppress(OSError, ValueError, KeyError, TypeError):  # a guess is no reason to fail
            return sum(float(read_json(path)["seconds"]) for path in accounts) or math.inf
        return math.inf

    return {stage: stages[stage] for stage in sorted(stages, key=seconds, reverse=True)}


def reproduce(root: Path, stage: str, *, timeout_seconds: float) -> Iterator[str]:
    """Runs one stage, if it has changed, and yields what it prints, line by line.

    Closing the generator ends the stage with all its processes.

    Raises:
        StageRefused: if the stage found its input wrong.
        StageFailed: if it ended otherwise than well, or took longer than the timeout.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    pause = 0.2
    while True:
        output: list[str] = []
        if (yield from _run(root, stage, timeout_seconds, output)) == 0:
            return
        text = "\n".join(output)
        # dvc.lock and its database are written by one process at a time, and DVC waits 3 s only.
        if any(sign in text for sign in BUSY) and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(2 * pause, 5.0)
            continue
        reason = _reason(output)
        if REFUSED.search(text):
            raise StageRefused(reason)
        raise StageFailed(f"{stage}: {reason}")


def _run(root: Path, stage: str, timeout_seconds: float, output: list[str]) -> Generator[str, None, int]:
    """Yields lines, keeps them in `output`, and returns the exit status."""
    process = subprocess.Popen(
        [*_dvc(), "repro", "--single-item", stage],
        cwd=root,
        env=_environment() | mark_flow(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that the whole group can be ended
    )
    _running.add(process)
    assert process.stdout is not None
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        _end([process])

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
        _running.discard(process)
        if process.poll() is None:
            _end([process])
            process.wait()
        process.stdout.close()


def end_all(grace_seconds: float = GRACE_SECONDS) -> None:
    """Ends every stage that this process has started and that still runs."""
    _end(list(_running), grace_seconds)


def _end(stages: list[subprocess.Popen[str]], grace_seconds: float = GRACE_SECONDS) -> None:
    """Asks all processes of some stages to end, dvc, training and recorder, and makes them after a grace."""
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


def _members(group: int) -> list[psutil.Process]:
    """The processes of a group, but for its leader, whom its parent waits for."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if process.pid != group and os.getpgid(process.pid) == group:
                found.append(process)
    return found


def _reason(output: list[str]) -> str:
    """The stage's own sentences if it said any, else the last thing that was printed."""
    own = [line.removeprefix("recursight: ") for line in output if line.startswith("recursight: ")]
    return "\n".join(own) or next((line for line in reversed(output) if line.strip()), "no output")


def _dvc() -> list[str]:
    return [sys.executable, "-m", "dvc"]


def _environment() -> dict[str, str]:
    """With this environment's commands first, whether or not it is activated, and nothing asked of a person."""
    commands = str(Path(sys.executable).parent)
    return os.environ | {"PATH": f"{commands}{os.pathsep}{os.environ.get('PATH', '')}", "DVC_NO_ANALYTICS": "1"}
