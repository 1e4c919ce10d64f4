"""`recursight serve` as a process, and a client for it."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image

from recursight.layout import Layout

PATIENCE_SECONDS = 120  # of tests that share the machine with others
COMMAND = [sys.executable, "-c", "from recursight.cli import main; main()", "serve"]
_numbers = count(1)


class Server:
    """A running server.

    Attributes:
        host: name or address, and port.
        process: of the server.
        log: its stderr.
    """

    def __init__(self, host: str, process: subprocess.Popen[str], log: Path) -> None:
        self.host, self.process, self.log = host, process, log

    def ask(
        self, path: str = "/predict", body: Any = None, kind: str = "", method: str = "", **headers: str
    ) -> tuple[int, dict[str, Any], HTTPResponse]:
        """Status, JSON and the whole answer; every answer must be JSON and name the version."""
        connection = HTTPConnection(self.host, timeout=PATIENCE_SECONDS)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            if kind:
                named["Content-Type"] = kind
            connection.request(method or ("POST" if body is not None else "GET"), path, body, named)
            answer = connection.getresponse()
            content = json.loads(answer.read())
        finally:
            connection.close()
        assert unquote(answer.headers["X-Model"]) == content["model"]
        assert answer.headers["X-Model-Version"] == str(content["version"])
        return answer.status, content, answer

    def metrics(self) -> str:
        connection = HTTPConnection(self.host, timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def wait_for_log(self, words: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while words not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def wait_for_version(self, version: int) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.ask("/health")[1]["version"] != version:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)


@contextmanager
def serving(layout: Layout, command: Sequence[str] = COMMAND) -> Iterator[Server]:
    """Starts a server of a project on a free port; kills it, should it still run at the end.

    Each has a log of its own: two servers of a project say the same of a new champion, each in its time.
    """
    log = layout.root / f"serve-{next(_numbers)}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*command, "--port", "0"],
            cwd=layout.root,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=dict(os.environ),
        )
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert "http" in line, log.read_text()
        yield Server(urlsplit(next(word for word in line.split() if "http" in word)).netloc, process, log)
    finally:
        process.kill()
        process.communicate()


def form(*files: tuple[str, bytes], fields: int = 0) -> tuple[bytes, str]:
    """A body of multipart/form-data, and its Content-Type."""
    parts = [b'Content-Disposition: form-data; name="note"\r\n\r\nhello'] * fields
    for name, content in files:
        parts.append(f'Content-Disposition: form-data; name="f"; filename="{name}"\r\n\r\n'.encode() + content)
    body = b"".join(b"--edge\r\n" + part + b"\r\n" for part in parts) + b"--edge--\r\n"
    return body, "multipart/form-data; boundary=edge"


def png(pixels: np.ndarray) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).save(file, "PNG")
        return file.getvalue()
