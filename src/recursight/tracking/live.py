"""Shows a training in MLflow while it runs, without ever holding it up.

A training that lasts gets a second process, the recorder, which alone imports MLflow and talks to the store. (A thread
would do the same work under the interpreter's lock: importing MLflow stops the loop for more than a second.) Epochs
reach it through a pipe that is never waited for. The pipe's end means that the training died. A short training
meets the recorder only once its result is on disk.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recursight.layout import Layout
from recursight.params import Params
from recursight.tracking import pending, runs
from recursight.tracking.connection import tracking_uri, without_password
from recursight.tracking.results import result_in

LIVE_AFTER_SECONDS = 10.0  # nobody watches a shorter training, and every recorder costs a second of a core
FINISH_SECONDS = 6.0  # what a training waits at most for its run to be completed; a SQLite file takes one
STOP_SECONDS = 2.0  # the same when it is being stopped


class Live:
    """Takes the epochs of one training.

    Attributes:
        live_after_seconds: age of the training at which its recorder starts.
        gently: whether the recorder leaves the cores to trainings: where nobody waits for its end.
    """

    def __init__(self, opening: dict[str, Any], live_after_seconds: float, gently: bool) -> None:
        self.live_after_seconds, self.gently = live_after_seconds, gently
        self._started = time.monotonic()
        self._unsent = [_line(opening)]
        self._recorder: subprocess.Popen[bytes] | None = None

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        """Hands over one row of history.csv, without waiting for anybody."""
        self._unsent.append(_line({"epoch": dict(row), "at_ms": round(time.time() * 1000)}))
        if self._recorder is None and time.monotonic() - self._started >= self.live_after_seconds:
            with contextlib.suppress(OSError):  # no process to be had: the result is sent later
                self._recorder = _start_recorder(*["--gently"] * self.gently)
        if self._recorder is not None:
            self._write(self._recorder)

    def _write(self, recorder: subprocess.Popen[bytes]) -> None:
        """Fills the pipe. What does not fit waits for the next epoch; a line of below 4 KiB fits or waits whole."""
        assert recorder.stdin is not None
        os.set_blocking(recorder.stdin.fileno(), False)
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # full; gone
            while self._unsent:
                sent = os.write(recorder.stdin.fileno(), self._unsent[0])
                self._unsent[0] = self._unsent[0][sent:]
                if not self._unsent[0]:
                    self._unsent.pop(0)

    def end(self, status: str, wait_seconds: float) -> bool:
        """Lets the recorder end the run; whether it did so in time."""
        try:
            recorder = self._recorder or _start_recorder()
        except OSError:
            return False
        assert recorder.stdin is not None
        self._unsent.append(_line({"end": status}))
        try:
            os.set_blocking(recorder.stdin.fileno(), True)
            recorder.communicate(b"".join(self._unsent), timeout=wait_seconds)
        except (subprocess.TimeoutExpired, OSError):
            recorder.kill()
        return recorder.wait() == 0

    @property
    def recorded(self) -> bool:
        """Whether a recorder has been started."""
        return self._recorder is not None


@contextmanager
def live(
    layout: Layout,
    params: Params,
    card: Mapping[str, Any],
    bundle: Path,
    live_after_seconds: float | None = None,
    defer: bool = False,
    wait_seconds: float = FINISH_SECONDS,
) -> Iterator[Live]:
    """Wraps a training, from before its first epoch until its bundle is on disk.

    The run ends FINISHED with the block, FAILED if an error leaves it, KILLED if the process is stopped or dies. A
    training that goes on from a checkpoint goes on in the run that it had.

    Args:
        layout: of the project.
        params: of the project.
        card: candidate, seed, architecture, training, training_digest and data_digest of the bundle to be.
        bundle: the folder that holds the bundle by the end of the block.
        live_after_seconds: age of the training at which it begins to be shown; by default at once, or at
            `LIVE_AFTER_SECONDS` where a `sync` follows.
        defer: whether what was not shown in time is left to a `sync` that is sure to follow.
        wait_seconds: how long the end may take; what is not sent by then is left to a later `sync`, too.
    """
    keys = ("candidate", "seed", "architecture", "training", "training_digest", "data_digest")
    opening: dict[str, Any] = {
        "root": str(layout.root),
        "experiment": params.registry.experiment,
        "name": runs.run_name(params, card["candidate"], card["seed"]),
        "card": {key: card[key] for key in keys},
        "bundle": str(bundle),
        "owner": runs.owner_tags(layout.root),
    }
    if live_after_seconds is None:  # a recorder that is needed in any case imports MLflow beside the training
        live_after_seconds = LIVE_AFTER_SECONDS if defer else 0.0
    run = Live(opening, live_after_seconds, gently=defer)
    try:
        yield run
    except Exception:
        run.end("FAILED", wait_seconds)
        raise
    except BaseException:  # SIGTERM and Ctrl-C must end it soon; what was never shown is not begun now
        if run.recorded:
            run.end("KILLED", min(wait_seconds, STOP_SECONDS))
        raise
    if defer and not run.recorded:
        return
    if not run.end("FINISHED", wait_seconds) and not defer:
        _keep(layout, opening["name"], bundle)


def _keep(layout: Layout, name: str, bundle: Path) -> None:
    result = result_in(bundle)
    if result:
        pending.keep(layout, result)
    server = without_password(tracking_uri(layout))
    sentence = f"{name}: the tracking server {server} has not got this training yet; `recursight track sync` sends it."
    print(sentence, file=sys.stderr, flush=True)


def _start_recorder(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "recursight.tracking.recorder", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0)


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, default=float).encode() + b"\n"
