"""Connections below the application: those that say nothing, say it slowly, or are too many."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.client import HTTPConnection, HTTPResponse

import pytest
import uvicorn

from recursight.serving import connections
from recursight.serving.connections import Connection

NAME = "数字"
ENCODED = "%E6%95%B0%E5%AD%97"
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


async def application(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(connections, "PER_CLIENT", 3)
    monkeypatch.setattr(connections, "CONNECTIONS", 5)
    listener = socket.create_server(("127.0.0.1", 0))
    protocol = partial(Connection, version=lambda: (NAME, 3))
    running = uvicorn.Server(uvicorn.Config(application, http=protocol, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield listener.getsockname()[1]
    running.should_exit = True
    thread.join()


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=120, source_address=(source, 0))


def refused(connection: socket.socket) -> tuple[int, str]:
    """Status and sentence of an answer that came from below the application, after which the connection is closed."""
    answer = HTTPResponse(connection)
    answer.begin()
    content = json.loads(answer.read())
    assert (content["model"], content["version"]) == (NAME, 3)
    assert (answer.headers["X-Model"], answer.headers["X-Model-Version"]) == (ENCODED, "3")
    assert answer.headers["Connection"] == "close"
    assert connection.recv(1) == b""
    return answer.status, content["error"]


@pytest.mark.parametrize("sent", [b"", b"G", HEAD])
def test_a_connection_without_a_whole_head_is_closed(port: int, sent: bytes) -> None:
    with connect(port) as silent:
        silent.sendall(sent)
        assert refused(silent) == (408, "No request arrived within 0.5 seconds.")


def test_a_head_that_arrives_byte_by_byte_does_not_postpone_the_end(port: int) -> None:
    with connect(port) as slow, pytest.raises(ConnectionError):
        slow.sendall(HEAD)
        for _ in range(12_000):
            slow.sendall(b"x")
            time.sleep(0.01)
    assert slow.fileno() == -1


def test_an_answered_connection_may_ask_again_but_not_stay_silent(port: int) -> None:
    with connect(port) as silent:
        for _ in range(2):
            silent.sendall(HEAD + b"\r\n")
            answer = HTTPResponse(silent)
            answer.begin()
            assert (answer.status, answer.read()) == (200, b"{}")
        silent.sendall(b"GET")
        assert refused(silent)[0] == 408


def test_one_address_does_not_shut_out_another(port: int) -> None:
    own = [connect(port) for _ in range(3)]
    with connect(port) as more:
        assert refused(more) == (503, "Too many connections: try again in a second.")
    with connect(port, "127.0.0.2") as other:
        other.sendall(HEAD + b"Connection: close\r\n\r\n")
        assert other.recv(100).startswith(b"HTTP/1.1 200")
    for connection in own:
        assert refused(connection)[0] == 408
        connection.close()
    with connect(port) as again:
        again.sendall(HEAD + b"\r\n")
        assert again.recv(100).startswith(b"HTTP/1.1 200")


def test_all_addresses_together_are_bounded(port: int) -> None:
    held = [connect(port, f"127.0.0.{number}") for number in range(2, 7)]
    with connect(port) as more:
        assert refused(more)[0] == 503
    for connection in held:
        connection.close()


def test_what_is_not_http_gets_a_sentence(port: int) -> None:
    with connect(port) as wrong:
        wrong.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
        assert refused(wrong) == (400, "This is not valid HTTP.")


def test_a_request_for_a_websocket_is_answered_as_any_other(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", "/", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    assert connection.getresponse().status == 200
    connection.close()
