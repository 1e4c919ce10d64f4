"""Checks every few seconds in MLflow which version is champion, and loads a new one.

A new version is loaded, run on one image and on many, and only then replaces the old one, in one assignment: each
request is answered by the version that it began with. A version that fails is logged and tried again at growing
intervals, since the fault may be in the network connection. While MLflow is down, the loaded version stays.
"""

import logging
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from recursight.errors import InputError
from recursight.layout import Layout
from recursight.registry import CHAMPION, version_with
from recursight.registry.loading import LoadedVersion, check_answers, load_version
from recursight.serving.metrics import Metrics
from recursight.tracking import connect
from recursight.tracking.connection import HASTY, outages

if TYPE_CHECKING:
    from mlflow import MlflowClient

LONGEST_WAIT_SECONDS = 300
_log = logging.getLogger("recursight.serving")


class ChampionWatch:
    """Holds the version in production, and replaces it.

    Args:
        layout: of the project.
        first: the champion to begin with.
        poll_seconds: between two checks.
        batch: images of the largest batch to come: a new version answers for so many before it serves.
        metrics: receives the outcome of each check.
    """

    def __init__(
        self, layout: Layout, first: LoadedVersion, *, poll_seconds: float, batch: int, metrics: Metrics
    ) -> None:
        self._layout, self._poll_seconds, self._batch, self._metrics = layout, poll_seconds, batch, metrics
        self._client: MlflowClient | None = None
        self._reported = ""
        self._broken, self._failures, self._again = 0, 0, 0.0
        self._end = threading.Event()
        self._take(warmed(first, batch))
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    @property
    def model(self) -> LoadedVersion:
        """The version in production."""
        return self._model

    def close(self) -> None:
        """Ends the checks; a load that is under way is not waited for."""
        self._end.set()

    def _watch(self) -> None:
        while not self._end.wait(self._poll_seconds):
            try:
                self._look()
            except Exception as error:  # MLflow's client can raise anything, and the watch must go on
                self._report(f"cannot check for a new champion: {error}")

    def _look(self) -> None:
        try:
            self._client = self._client or connect(self._layout, HASTY)
            found = version_with(self._client, self._model.name, CHAMPION)
        except outages() as error:
            self._client = None
            self._metrics.registry_answers.set(0)
            self._report(f"MLflow does not answer, version {self._model.version} stays: {error}")
            return
        self._metrics.registry_answers.set(1)
        if found is None:
            self._report(f"no version is champion any more; version {self._model.version} stays.")
            return
        self._reported = ""
        version = int(found.version)
        if version == self._model.version:
            self._broken = self._failures = 0
        elif version != self._broken or time.monotonic() >= self._again:
            self._replace(version)

    def _replace(self, version: int) -> None:
        try:
            model = warmed(load_version(self._layout, self._model.name, version), self._batch)
        except InputError as fault:
            self._failures = self._failures + 1 if version == self._broken else 1
            wait = min(self._poll_seconds * 2**self._failures, LONGEST_WAIT_SECONDS)
            self._broken, self._again = version, time.monotonic() + wait
            self._metrics.loads.labels("failed").inc()
            _log.error("the new champion cannot be used, version %d stays: %s", self._model.version, fault)
            return
        before = self._model.version
        self._take(model)
        self._broken = self._failures = 0
        _log.warning("version %d replaces version %d", version, before)

    def _take(self, model: LoadedVersion) -> None:
        self._model = model
        self._metrics.loads.labels("served").inc()
        self._metrics.serve(model.name, model.version)

    def _report(self, sentence: str) -> None:
        """Logs a sentence once, until something changes."""
        if sentence != self._reported:
            _log.warning("%s", " ".join(sentence.split()))
            self._reported = sentence


def warmed(model: LoadedVersion, batch: int) -> LoadedVersion:
    """Runs a version on one image and on many, which also makes its first real answers fast.

    Raises:
        Unreadable: if it fails, or answers differently for an image alone and in a batch.
    """
    images = np.random.default_rng(0).integers(0, 256, (max(batch, 2), *model.input_shape), dtype=np.uint8)
    check_answers(model, images)
    return model
