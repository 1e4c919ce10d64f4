"""A real server over time: a new champion, MLflow gone, signals, too many callers, and starts that fail."""

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections import Counter
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from recursight.layout import Layout
from recursight.serving.prediction_log import read_log
from recursight.tracking import connect
from tests.serving.server import COMMAND, Server, png, serving

pytestmark = pytest.mark.slow


class Callers:
    """Threads that ask without a pause, and keep what they got."""

    def __init__(self, server: Server, images: np.ndarray, threads: int = 6) -> None:
        self.statuses: Counter[int] = Counter()
        self.versions: list[int] = []
        self.faults: list[Exception] = []
        self._server = server
        self._bodies = [png(image) for image in images[:20]]
        self._numbers = count()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(threads)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        while not self._end.is_set():
            try:
                body = self._bodies[next(self._numbers) % len(self._bodies)]
                status, content, _ = self._server.ask(body=body, kind="image/png")
                self.statuses[status] += 1
                self.versions.append(content["version"])
            except Exception as fault:
                self.faults.append(fault)


def network_of(layout: Layout, version: int) -> Path:
    source = connect(layout).get_model_version("recursight", str(version)).source
    return (
        layout.root / "mlartifacts" / "models" / source.rpartition("/")[2] / "artifacts" / "artifacts" / "network.pt2"
    )


def appoint(layout: Layout, version: int) -> None:
    connect(layout).set_registered_model_alias("recursight", "champion", str(version))


def test_a_new_champion_takes_over_without_a_dropped_request(two_versions, images):
    """A broken one does not; it is tried again, and serves once it is whole. MLflow may be gone meanwhile."""
    broken = network_of(two_versions, 2)
    whole = broken.read_bytes()
    broken.write_bytes(whole[:1000])
    with serving(two_versions) as server, Callers(server, images) as callers:
        appoint(two_versions, 2)
        server.wait_for_log("the new champion cannot be used, version 1 stays: version 2 cannot be loaded")
        assert server.ask("/ready")[1]["version"] == 1
        assert 'recursight_model_loads_total{outcome="failed"}' in server.metrics()
        broken.write_bytes(whole)
        server.wait_for_version(2)
        asked = len(callers.versions)
        while len(callers.versions) < asked + 50:
            assert not callers.faults
            callers._end.wait(0.01)
        appoint(two_versions, 1)
        server.wait_for_version(1)
    assert callers.faults == []
    assert set(callers.statuses) == {200}
    assert set(callers.versions) == {1, 2}
    assert "Traceback" not in server.log.read_text()


def test_it_serves_on_without_mlflow(own, images):
    with serving(own) as server:
        database = own.root / "mlflow.db"
        database.write_bytes(b"no database")
        shutil.rmtree(own.root / "mlartifacts")
        server.wait_for_log("MLflow does not answer, version 1 stays")
        assert server.ask(body=png(images[0]), kind="image/png")[0] == 200
        assert "recursight_registry_answers 0.0" in server.metrics()
        assert server.log.read_text().count("MLflow does not answer") == 1


def test_sigterm_lets_requests_end_and_the_log_has_them_all(own, images):
    with serving(own) as server:
        with Callers(server, images) as callers:
            while len(callers.versions) < 50:
                assert not callers.faults
                callers._end.wait(0.01)
            callers._end.set()
            server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=300) == 0
    assert set(callers.statuses) == {200}
    assert all(isinstance(fault, ConnectionError) for fault in callers.faults), "no answer was cut off half way"
    log = read_log(own.predictions)
    assert len(log) == callers.statuses[200]
    assert set(log["source"]) == {"serve"}
    assert "Traceback" not in server.log.read_text()


def test_a_killed_server_leaves_a_readable_log(own, images):
    with serving(own) as server:
        for _ in range(3):
            server.ask(body=png(images[0]), kind="image/png")
        while len(read_log(own.predictions)) < 3:
            server.ask(body=png(images[0]), kind="image/png")
        server.process.kill()
        server.process.wait()
    assert len(read_log(own.predictions)) >= 3


def test_too_many_requests_at_once_are_turned_away(own, images):
    own.params.write_text(own.params.read_text().replace('"max_images"', '"max_waiting": 1, "max_images"'))
    with serving(own) as server:
        slow = socket.create_connection(server.host.split(":"), timeout=60)
        slow.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n"
        )
        while server.ask("/ready")[0] == 200:
            pass
        status, content, answer = server.ask(body=png(images[0]), kind="image/png")
        assert (status, answer.headers["Retry-After"]) == (503, "1")
        assert "Too many requests" in content["error"]
        slow.close()
        while server.ask("/ready")[0] != 200:
            pass
        assert server.ask(body=png(images[0]), kind="image/png")[0] == 200


def test_what_stands_in_the_way_of_a_start_is_said(own):
    def start(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words], cwd=own.root, capture_output=True, text=True, env=dict(os.environ), check=False
        )

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = start("--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "Address already in use" in done.stderr
    assert "--allow-host" in start("--host", "0.0.0.0").stderr
    connect(own).delete_registered_model_alias("recursight", "champion")
    assert "has no champion yet" in start().stderr
