"""Who can be killed, and how they are found among the processes of a project."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from tests.chaos.aftermath import strangers
from tests.platforms import Platform

KINDS = ("flow", "worker", "server", "dvc", "training", "mlflow")
WAIT_SECONDS = 60.0


def victim(platform: Platform, kind: str) -> psutil.Process | None:
    """A process of a kind that lives right now."""
    if kind in ("worker", "server", "mlflow"):
        return platform.process({"server": "prefect"}.get(kind, kind))
    for process in strangers(platform):
        with suppress(psutil.Error):
            if MATCHES[kind](process.cmdline()):
                return process
    return None


def kill(platform: Platform, kind: str, over: Callable[[], bool]) -> tuple[str, float] | None:
    """SIGKILL to the first process of a kind that there is; what it was and how long it was waited for.

    Args:
        platform: whose processes are meant.
        kind: one of KINDS.
        over: whether it is too late. Then nobody is killed, and the answer is None.
    """
    began = time.monotonic()
    while time.monotonic() - began < WAIT_SECONDS and not over():
        found = victim(platform, kind)
        if found:
            with suppress(psutil.Error, ProcessLookupError):
                words = " ".join(word.rpartition("/")[2] for word in found.cmdline()[1:])[:60]
                os.kill(found.pid, signal.SIGKILL)
                return words, time.monotonic() - began
        time.sleep(0.02)
    return None


def _is_flow(words: list[str]) -> bool:
    return words[-1:] == ["pipeline"] or words[-1:] == ["prefect.engine"]


MATCHES: dict[str, Callable[[list[str]], bool]] = {
    "flow": _is_flow,
    "dvc": lambda words: words[1:3] == ["-m", "recursight.executors.dvc"],
    "training": lambda words: "train" in words[2:3] and words[1].endswith("recursight"),
}
