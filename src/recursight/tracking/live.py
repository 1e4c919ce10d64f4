"""Logs a training to MLflow while it runs, without ever delaying it.

A training of more than a few seconds gets a second process, the recorder, which imports MLflow and sends everything to
the store. (In a thread, importing MLflow would hold the interpreter's lock and stop the loop for more than a second.)
Epochs are written to a pipe without blocking; its end means that the training died. The recorder of a short training
starts when the result is on disk.
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

LIVE_AFTER_SECONDS = 10.0  # shorter trainings are not watched, and each recorder costs a second of processor time
FINISH_SECONDS = 6.0  # longest wait at the end of a training for its run to be completed; a SQLite file takes one
STOP_SECONDS = 2.0  # the same if the training is stopped


class Live:
    """The log of one training.

    Attributes:
        live_after_seconds: age of the training at which its recorder starts.
        gently: whether the recorder runs at low priority, because nothing waits for its end.
    """

    def __init__(self, opening: dict[str, Any], live_after_seconds: float, gently: bool) -> None:
        self.live_after_seconds, self.gently = live_after_seconds, gently
        self._started = time.monotonic()
        self._unsent = [_line(opening)]
        self._recorder: subprocess.Popen[bytes] | None = None

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        """Passes on one row of history.csv without blocking."""
        self._unsent.append(_line({"epoch": dict(row), "at_ms": round(time.time() * 1000)}))
        if self._recorder is None and time.monotonic() - self._started >= self.live_after_seconds:
            with contextlib.suppress(OSError):  # no process can be started: the result is sent later
                self._recorder = _start_recorder(*["--gently"] * self.gently)
        if self._recorder is not None:
            self._write(self._recorder)

    def _write(self, recorder: subprocess.Popen[bytes]) -> None:
        """Writes what fits into the pipe; the rest waits for the next epoch. A line below 4 KiB is never split."""
        assert recorder.stdin is not None
        os.set_blocking(recorder.stdin.fileno(), False)
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # full; or the recorder has ended
            while self._unsent:
                sent = os.write(recorder.stdin.fileno(), self._unsent[0])
                self._unsent[0] = self._unsent[0][sent:]
                if not self._unsent[0]:
                    self._unsent.pop(0)

    def end(self, status: str, wait_seconds: float) -> bool:
        """Has the recorder end the run, and returns whether it did so in time."""
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
    training that resumes from a checkpoint continues its run.

    Args:
        layout: of the project.
        params: of the project.
        card: candidate, seed, architecture, training, training_digest and data_digest of the future bundle.
        bundle: the folder that holds the bundle by the end of the block.
        live_after_seconds: age of the training at which its recorder starts; by default at once, or at
            `LIVE_AFTER_SECONDS` if a `sync` follows.
        defer: whether a `sync` follows, which sends what the recorder has not.
        wait_seconds: how long the end may take; a later `sync` sends what is missing then.
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
    if live_after_seconds is None:  # a recorder that is needed anyway imports MLflow during the training
        live_after_seconds = LIVE_AFTER_SECONDS if defer else 0.0
    run = Live(opening, live_after_seconds, gently=defer)
    try:
        yield run
    except Exception:
        run.end("FAILED", wait_seconds)
        raise
    except BaseException:  # SIGTERM and Ctrl-C must end it soon: no recorder is started now
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
    sentence = (
        f"{name}: the tracking server {server} has not received this training yet; `recursight track sync` sends it."
    )
    print(sentence, file=sys.stderr, flush=True)


def _start_recorder(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "recursight.tracking.recorder", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0)


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, default=float).encode() + b"\n"
