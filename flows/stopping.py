"""Stops a flow that is asked to stop: Ctrl-C, SIGTERM, a closed terminal, a cancellation in Prefect.

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
from dataclasses import replace
from typing import Any

import psutil

from recursight.layout import Layout
from recursight.operations import flow_runs, owners
from recursight.operations.flow_runs import Prefect
from recursight.stages.reproduce import end_all

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STAGES_SECONDS = 5.0  # for trainings to end, and for their recorders to say so in MLflow
SERVER_SECONDS = 2.0  # for an answer of Prefect's, and for a temporary one to end

_asked = threading.Event()
_runs: list[tuple[Prefect, str]] = []
_last_acts: list[Callable[[], None]] = []


@contextmanager
def stoppable() -> Iterator[None]:
    """Within, the first signal stops everything in good order; a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [sign for sign in SIGNALS if signal.getsignal(sign) != signal.SIG_IGN]  # `nohup` keeps its word
    before = {sign: signal.signal(sign, _on_signal) for sign in heard}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


@contextmanager
def stoppable_flow() -> Iterator[None]:
    """The same for a flow, in its body: its run is marked as cancelled."""
    from prefect.runtime import flow_run

    with suppress(OSError), flow_runs.prefect_of_flows() as prefect:
        _runs.append((replace(prefect, timeout_seconds=SERVER_SECONDS), str(flow_run.id)))
    try:
        with stoppable():
            yield
    finally:
        _runs[:] = [run for run in _runs if run[1] != str(flow_run.id)]


@contextmanager
def at_last(act: Callable[[], None]) -> Iterator[None]:
    """Within, something to be done before the process ends, such as giving the terminal back."""
    _last_acts.append(act)
    try:
        yield
    finally:
        _last_acts.remove(act)


def hold() -> None:
    """Waits for the end if that is near: what fails now failed because it was ended, and is not to be tried again."""
    if _asked.is_set():
        threading.Event().wait(2 * STAGES_SECONDS)


def shield_temporary_server() -> None:
    """Lets Prefect start its temporary server in a session of its own.

    Ctrl-C goes to every process of the terminal. The server would end at once, and nobody could be told that the flow
    was stopped.
    """
    import subprocess
    from functools import partial
    from types import SimpleNamespace

    from prefect.server.api import server

    own_session: Any = SimpleNamespace(**vars(subprocess))
    own_session.Popen = partial(subprocess.Popen, start_new_session=True)
    vars(server)["subprocess"] = own_session


def _on_signal(number: int, frame: Any) -> None:
    if _asked.is_set():
        _exit(number)
    _asked.set()
    print("\nrecursight: stopping; the same command will go on from here.", file=sys.stderr, flush=True)
    threading.Thread(target=_stop, args=(number,), name="stopping").start()


def _stop(number: int) -> None:
    """Stages and flow runs side by side; then what else this process has started."""
    tasks = [threading.Thread(target=end_all, args=(STAGES_SECONDS,), daemon=True)]
    tasks += [threading.Thread(target=_cancel, args=(*run, number), daemon=True) for run in reversed(_runs)]
    for task in tasks:
        task.start()
    for act in _last_acts:
        with suppress(Exception):  # the end comes, whatever it says
            act()
    for task in tasks:
        task.join(STAGES_SECONDS + SERVER_SECONDS)
    _exit(number)


def _cancel(prefect: Prefect, run_id: str, number: int) -> None:
    message = f"Stopped by {signal.Signals(number).name} on {socket.gethostname()}."
    with suppress(OSError):  # the next flow marks it
        flow_runs.cancel(prefect, run_id, message)


def _exit(number: int) -> None:
    """Without Python's own end, which would wait for threads. Nothing that this process started stays."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        with suppress(psutil.Error):
            child.terminate()
    _, left = psutil.wait_procs(children, timeout=SERVER_SECONDS)
    for child in left:
        with suppress(psutil.Error):
            child.kill()
    with suppress(Exception):
        owners.leave(Layout.find())
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(128 + number)
