"""A real MLflow server, and a door before it that can be slow or lose what passes."""

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import processes

START_SECONDS = 300


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`mlflow server` on a database in a folder; can be killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        store, files = f"sqlite:///{self.folder / 'server.db'}", str(self.folder / "files")
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", store, "--artifacts-destination", files, "--workers", "1"]
        environment = (
            os.environ
            | processes.mark("session")
            | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        )
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError, urllib.error.URLError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            time.sleep(0.1)
        raise TimeoutError((self.folder / "server.log").read_text())

    def kill(self) -> None:
        """SIGKILL, of its workers too."""
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None


_servers: list[Server] = []


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for every folder of tests that takes this fixture. A test that kills it starts it again."""
    if not _servers:
        _servers.append(Server(tmp_path_factory.mktemp("server")))
        _servers[0].start()
    yield _servers[0]
    _servers[0].kill()


class Door(ThreadingHTTPServer):
    """Passes HTTP requests on.

    Attributes:
        delay_seconds: before each answer.
        fails: takes turns: pass on; refuse with 500; pass on but lose the answer.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Passage)
        self.behind = port
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        self.delay_seconds = 0.0
        self.fails = False
        self.passed = self.turn = 0

    def next_turn(self) -> int:
        self.turn += 1
        return (self.turn % 4) if self.fails else 0


class Passage(BaseHTTPRequestHandler):
    """One connection through the door."""

    server: Door

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(self.server.delay_seconds)
        turn = self.server.next_turn()
        self.close_connection = True
        if turn == 1:
            self.send_error(500)
            return
        behind = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=120)
        headers = {key: value for key, value in self.headers.items() if key.lower() not in ("connection", "host")}
        behind.request(self.command, self.path, body, headers | {"Connection": "close"})
        answer = behind.getresponse()
        content = answer.read()
        behind.close()
        self.server.passed += 1
        if turn == 3:
            return  # the request is done, but nobody hears of it
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass  # noqa: N815

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def door_to(port: int) -> Iterator[Door]:
    with Door(port) as door:
        thread = threading.Thread(target=door.serve_forever, daemon=True)
        thread.start()
        yield door
        door.shutdown()
        thread.join()
