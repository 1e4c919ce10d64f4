"""The reverse proxy of docs/serving.md, as it stands there, by a real nginx before a real server."""

import base64
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests.platforms import until
from tests.serving.server import PATIENCE_SECONDS, Server
from tests.test_docs import blocks
from tests.tracking.servers import free_port
from tests.workspace import ROOT

NAME, PASSWORD = "anna", "a secret"
LOGIN = {"Authorization": "Basic " + base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode()}

absent = [program for program in ("nginx", "openssl") if shutil.which(program, path="/usr/sbin:/usr/bin:/bin") is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}"),
]


class Proxy:
    """nginx on a port, and a client that trusts its certificate."""

    def __init__(self, port: int, certificate: Path) -> None:
        self.port, self.trust = port, ssl.create_default_context(cafile=str(certificate))
        self.trust.check_hostname = False  # made for images.example.org

    def ask(self, path: str, body: str | None = None, declared: int | None = None, **headers: str) -> tuple[int, bytes]:
        """Status and body; `declared` bytes are promised where another number than the body's is."""
        connection = HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS, context=self.trust)
        try:
            connection.putrequest("POST" if body is not None else "GET", path)
            if body is not None:
                connection.putheader("Content-Type", "application/json")
                connection.putheader("Content-Length", str(len(body) if declared is None else declared))
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body.encode() if body else None)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture
def proxy(server: Server, tmp_path: Path) -> Iterator[Proxy]:
    key, certificate, callers = tmp_path / "images.key", tmp_path / "images.pem", tmp_path / "callers"
    name = "images.example.org"
    made = ["-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-subj", f"/CN={name}"]
    subprocess.run(["openssl", "req", "-x509", "-batch", *made], check=True, capture_output=True)
    hashed = subprocess.run(["openssl", "passwd", "-apr1", PASSWORD], check=True, capture_output=True, text=True)
    callers.write_text(f"{NAME}:{hashed.stdout}")
    port = free_port()
    (shown,) = blocks(ROOT / "docs" / "serving.md", "nginx")
    for there, here in {
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/nginx/images.key": str(key),
        "/etc/nginx/images.pem": str(certificate),
        "/etc/nginx/callers": str(callers),
        "http://127.0.0.1:8000;": f"http://{server.host};",
    }.items():
        assert shown.count(there) == 1, there
        shown = shown.replace(there, here)
    folders = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    settings = tmp_path / "nginx.conf"
    settings.write_text(
        f"daemon off; pid {tmp_path}/pid; worker_processes 1; user root;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{folders}{shown}}}\n"
    )
    command = [shutil.which("nginx", path="/usr/sbin:/usr/bin"), "-c", str(settings), "-e", str(tmp_path / "log")]
    process = subprocess.Popen(command)
    try:
        until(lambda: listens(port) or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield Proxy(port, certificate)
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_who_has_the_password_gets_what_the_server_says(proxy: Proxy, server: Server, images) -> None:
    body = json.dumps({"images": images[:2].tolist()})
    assert proxy.ask("/predict", body)[0] == 401
    status, answer = proxy.ask("/predict", body, **LOGIN)
    assert status == 200
    assert json.loads(answer)["predictions"] == server.ask(body=body, kind="application/json")[1]["predictions"]


@pytest.mark.parametrize("path", ["/", "/metrics", "/health", "/predict/"])
def test_nothing_else_is_handed_on(proxy: Proxy, path: str) -> None:
    assert proxy.ask(path, **LOGIN)[0] == 404


def test_more_bytes_than_the_server_takes_never_reach_it(proxy: Proxy) -> None:
    assert proxy.ask("/predict", "", declared=16 * 1024**2 + 1, **LOGIN)[0] == 413


def test_a_caller_in_a_hurry_is_told_so(proxy: Proxy, images) -> None:
    body = json.dumps({"images": images[:1].tolist()})
    statuses = set()

    def hurry() -> bool:
        with ThreadPoolExecutor(16) as callers:
            statuses.update(
                status for status, _ in callers.map(lambda _: proxy.ask("/predict", body, **LOGIN), range(128))
            )
        return 429 in statuses

    until(hurry)  # a slow machine may need to be asked again
    assert statuses == {200, 429}
