"""Stops a flow on request: Ctrl-C, SIGTERM, a closed terminal, a cancellation in Prefect.

Prefect's own way waits for task threads, retries, and a server that may be gone: minutes, at worst. Here stages, flow
runs and servers are ended side by side, each in bounded time, and then the process. All work is on disk: the same
command goes on.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from recursight import processes
from recursight.executors import EXECUTORS, clone
from recursight.layout import Layout
from recursight.operations import flow_runs
from recursight.operations.prefect_api import PrefectApi

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STAGES_SECONDS = 5.0  # for trainings to end, and for their recorders to mark it in MLflow
SERVER_SECONDS = 2.0  # for an answer of Prefect's, and for a temporary one to end

_asked = threading.Event()
_runs: list[tuple[PrefectApi, str]] = []
_exit_acts: list[Callable[[], None]] = []


@contextmanager
def stoppable() -> Iterator[None]:
    """Context in which the first signal stops everything cleanly, and a second one immediately."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [sign for sign in SIGNALS if signal.getsignal(sign) != signal.SIG_IGN]  # `nohup` keeps working
    before = {sign: signal.signal(sign, _on_signal) for sign in handled}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


@contextmanager
def stoppable_flow() -> Iterator[None]:
    """The same in the body of a flow, whose run is marked as cancelled."""
    from prefect.runtime import flow_run

    processes.reduce_garbage_collection()  # a worker starts flows without the command line
    prefect, run_id = PrefectApi.configured(timeout_seconds=SERVER_SECONDS), str(flow_run.id)
    if prefect:
        _runs.append((prefect, run_id))
    try:
        with stoppable():
            yield
    finally:
        _runs[:] = [run for run in _runs if run[1] != run_id]


@contextmanager
def on_exit(act: Callable[[], None]) -> Iterator[None]:
    """Context with something to do before the process ends, such as restoring the terminal."""
    _exit_acts.append(act)
    try:
        yield
    finally:
        _exit_acts.remove(act)


def wait_for_shutdown() -> None:
    """Waits for the end of a process that is shutting down, so that what fails now is not retried."""
    if _asked.is_set():
        threading.Event().wait(2 * STAGES_SECONDS)


def _on_signal(number: int, frame: Any) -> None:
    if _asked.is_set():
        _exit(number)
    _asked.set()
    print("\nrecursight: stopping; the same command will go on from here.", file=sys.stderr, flush=True)
    threading.Thread(target=_stop, args=(number,), name="stopping").start()


def _stop(number: int) -> None:
    """Ends stages and flow runs in parallel, then everything else that this process has started."""
    tasks = [
        threading.Thread(target=executor.end_all, args=(STAGES_SECONDS,), daemon=True)
        for executor in EXECUTORS.values()
    ]
    tasks += [threading.Thread(target=_cancel, args=(*run, number), daemon=True) for run in reversed(_runs)]
    for task in tasks:
        task.start()
    for act in _exit_acts:
        with suppress(Exception):  # the process ends anyway
            act()
    for task in tasks:
        task.join(STAGES_SECONDS + SERVER_SECONDS)
    _exit(number)


def _cancel(prefect: PrefectApi, run_id: str, number: int) -> None:
    message = f"Stopped by {signal.Signals(number).name} on {socket.gethostname()}."
    with suppress(OSError):  # the next flow marks it
        flow_runs.cancel(prefect, run_id, message)


def _exit(number: int) -> None:
    """Exits without waiting for threads, as Python would. Nothing that this process started is left."""
    processes.end(processes.with_descendants(psutil.Process())[1:], (SERVER_SECONDS,))
    with suppress(Exception):
        clone.release(Layout.find())
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(128 + number)
