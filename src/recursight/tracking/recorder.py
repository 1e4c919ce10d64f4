"""The process that logs a training to its MLflow run: `python -m recursight.tracking.recorder`, started by `live`.

It reads JSON lines: the description of the training, then `{"epoch": {...}, "at_ms": ...}` after each epoch, then
`{"end": status}`. Input that stops without an end means that the training was killed. Exit status 0 means that the run
is complete.
"""

import json
import os
import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from recursight import processes
from recursight.errors import InputError
from recursight.layout import Layout
from recursight.params import load
from recursight.provenance import git_commit
from recursight.tracking import runs
from recursight.tracking.connection import HASTY, connect, experiment_id, outages, tracking_uri, unreachable
from recursight.tracking.results import result_in
from recursight.tracking.sending import epoch_metrics, epochs_of, log, log_lineage, send_training
from recursight.tracking.synchronise import lock_path
from recursight.tracking.usage import Usage, usage_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

CONSEQUENCE = "training goes on; `recursight track sync` sends what is missing."
RETRY_SECONDS = 15.0
LAST_SECONDS = 10  # for the end, once the training is gone


class Recorder:
    """Logs to one run. If the store fails, it tries again later."""

    def __init__(self, opening: dict[str, Any]) -> None:
        self.layout = Layout(Path(opening["root"]))
        self.opening = opening
        self.card = opening["card"]
        self.unsent: list[dict[str, Any]] = []
        self.usage: Usage | None = None
        self.samples: list[Metric] = []
        self.client: MlflowClient | None = None
        self.experiment = self.run_id = ""
        self.finished_before = self.reported = False
        self.next_attempt = 0.0

    def attempt(self) -> bool:
        """Sends what is waiting, and returns whether all was sent."""
        if time.monotonic() < self.next_attempt:
            return False
        try:
            self._send_epochs(self._connected())
            self._send_samples(self._connected())
        except outages() as error:
            self._report(error)
            self.next_attempt = time.monotonic() + RETRY_SECONDS
            return False
        return True

    @property
    def pause_seconds(self) -> float | None:
        """Time until something is due without a new message; None for never."""
        return self.usage.due_seconds if self.usage else None

    def finish(self, status: str) -> bool:
        """Ends the run, and returns whether all of it is in the store."""
        try:
            if status == "FINISHED":
                with FileLock(lock_path(self.layout), timeout=LAST_SECONDS):
                    return self._complete(self._connected())
            client = self._connected()
            self._send_epochs(client)
            self._send_samples(client, last=True)
            if self.run_id:
                client.set_terminated(self.run_id, status)
            return True
        except Timeout:  # a synchronisation is running, and may have read the disk earlier
            return False
        except outages() as error:
            self._report(error)
            return False

    def _connected(self) -> "MlflowClient":
        """Connects once, and ends runs whose process has died."""
        if self.client is None:
            client = connect(self.layout, HASTY)
            self.experiment = experiment_id(client, self.layout, self.opening["experiment"])
            runs.end_leftovers(client, self.experiment)
            self.client = client
        return self.client

    def _send_epochs(self, client: "MlflowClient") -> None:
        if not self.run_id and not self.finished_before:
            self._begin(client)
        if self.run_id and self.unsent:
            metrics = [
                metric for message in self.unsent for metric in epoch_metrics(message["epoch"], message["at_ms"])
            ]
            log(client, self.run_id, metrics=metrics)
        self.unsent.clear()

    def _send_samples(self, client: "MlflowClient", last: bool = False) -> None:
        if self.usage:
            self.samples += self.usage.sample(last)
        if self.samples:
            log(client, self.run_id, metrics=self.samples)
            self.samples.clear()

    def _begin(self, client: "MlflowClient") -> None:
        """Finds the run of the interrupted training, or creates one; neither if the training is logged already."""
        name, digest = self.card["candidate"], self.card["training_digest"]
        if runs.find_finished(client, self.experiment, training=digest, candidate=name):
            self.finished_before = True
            return
        tags = runs.tags_of(self.card, git_commit(self.layout.root)) | self.opening["owner"]
        cut_off = runs.unfinished(client, self.experiment, name, digest, self.layout.root)
        if cut_off:
            run_id = cut_off[0].info.run_id
            known = epochs_of(client, run_id)
            self.unsent = [message for message in self.unsent if message["epoch"]["epoch"] not in known]
            runs.adopt_run(client, run_id, tags)
        else:
            run_id = client.create_run(self.experiment, tags=tags, run_name=self.opening["name"]).info.run_id
        self.run_id = run_id
        log(client, self.run_id, params=runs.params_of(self.card))
        log_lineage(client, self.run_id, self.layout, self.card)
        self.usage = usage_of(client, self.run_id, tracking_uri(self.layout))

    def _complete(self, client: "MlflowClient") -> bool:
        """Everything about the finished training comes from its files."""
        result = result_in(Path(self.opening["bundle"]))
        if result is None or result.card["training_digest"] != self.card["training_digest"]:
            return False
        self._send_samples(client, last=True)
        if not runs.find_finished(client, self.experiment, bundle=result.digest):
            params = load(self.layout.params)
            send_training(client, self.layout, params, self.experiment, result, self.run_id or None)
        return True

    def _report(self, error: Exception) -> None:
        if not self.reported:
            print(unreachable(tracking_uri(self.layout), error, CONSEQUENCE), file=sys.stderr, flush=True)
        self.reported = True


def record() -> bool:
    """Follows a training to its end; whether its run is complete."""
    lines = Lines(sys.stdin.fileno())
    first = lines.wait(None)
    if not first:
        return False
    recorder = Recorder(first[0])
    messages = first[1:]
    while True:
        for message in messages:
            if "end" in message:
                return recorder.finish(message["end"])
            recorder.unsent.append(message)
        if lines.closed:
            processes.end_after(LAST_SECONDS)
            recorder.finish("KILLED")
            return False
        done = recorder.attempt()
        messages = lines.wait(recorder.pause_seconds if done else 1.0)


class Lines:
    """JSON lines from a pipe, as they come."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.closed = False
        self._rest = b""

    def wait(self, timeout_seconds: float | None) -> list[dict[str, Any]]:
        """What has come; waits for more if there is nothing."""
        ready, _, _ = select.select([self.descriptor], [], [], timeout_seconds)
        if not ready:
            return []
        chunk = os.read(self.descriptor, 1 << 20)
        self.closed = not chunk
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [json.loads(line) for line in lines]


def main() -> int:
    processes.reduce_garbage_collection()
    processes.leave_stopping_to_parent()  # the training reports how it ended, and kills a recorder that takes too long
    if "--gently" in sys.argv:
        os.nice(19)  # a training on a full machine keeps its cores
    try:
        return 0 if record() else 1
    except InputError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
