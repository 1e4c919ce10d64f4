"""Who may pass: real requests through a real server to an application that says what reached it."""

import base64
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from recursight.host_check import HOSTS, HostCheck
from recursight.host_check import LOGIN as LOGIN_VARIABLE

LOGIN = "somebody:secret"
TOKEN = "Basic " + base64.b64encode(LOGIN.encode()).decode()


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/{path:path}")
    @app.post("/{path:path}")
    def answer(path: str) -> dict[str, str]:
        return {"reached": path}

    @app.websocket("/{path:path}")
    async def socket_answer(websocket: WebSocket, path: str) -> None:
        await websocket.accept()
        await websocket.send_text(path)
        await websocket.close()

    return app


@pytest.fixture(scope="module", params=[False, True], ids=["checked-sockets", "own-sockets"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[int, bool]]:
    """Port, and whether the application asks its websockets for the login itself."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    checked = HostCheck(
        application(),
        [f"127.0.0.1:{port}", f"localhost:{port}"],
        login=LOGIN,
        no_login={"/health"},
        app_asks_sockets=request.param,
    )
    running = uvicorn.Server(uvicorn.Config(checked, log_level="error", lifespan="off", ws="websockets-sansio"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield port, request.param
    running.should_exit = True
    thread.join()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_who_is_logged_in_passes(server: tuple[int, bool]) -> None:
    port, _ = server
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        status, text = ask(port, "/runs", Host=host, Origin=f"http://{host}", Authorization=TOKEN)
        assert (status, json.loads(text)) == (200, {"reached": "runs"})


@pytest.mark.parametrize("authorization", [None, "Basic c29tZWJvZHk6d3Jvbmc=", "Bearer x", "", "Basic é"])
def test_who_is_not_is_asked_to_log_in(server: tuple[int, bool], authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    status, text = ask(server[0], "/runs", **headers)
    assert status == 401
    assert "reached" not in text


def test_health_is_open_to_reading_only(server: tuple[int, bool]) -> None:
    port, _ = server
    assert ask(port, "/health")[0] == 200
    assert ask(port, "/health", "POST")[0] == 401
    assert ask(port, "/health/../runs")[0] == 401
    assert ask(port, "//health")[0] == 401


@pytest.mark.parametrize("name", ["Host", "Origin"])
@pytest.mark.parametrize("foreign", ["http://evil.example", "evil.example", "null", "http://127.0.0.1", "127.0.0.1:1"])
def test_foreign_hosts_and_pages_are_refused_even_with_a_login(
    server: tuple[int, bool], name: str, foreign: str
) -> None:
    for path in ("/runs", "/health"):
        assert ask(server[0], path, **{name: foreign}, Authorization=TOKEN)[0] == 403


@pytest.mark.parametrize(
    "foreign", ["localhost:1@evil.example", "[::1].evil.example", "[::1]evil", "localhost:x", "::1"]
)
def test_hosts_are_parsed_and_not_only_compared_at_their_beginning(foreign: str) -> None:
    """A server that is called by these names on any port."""
    checked = HostCheck(application(), ["localhost", "::1"])
    for headers in ([(b"host", foreign)], [(b"host", "localhost"), (b"origin", f"http://{foreign}")]):
        scope = {"type": "http", "path": "/", "method": "GET", "headers": [(n, v.encode()) for n, v in headers]}
        assert checked._refusal(scope)
    for own in ("localhost", "LOCALHOST:80", "[::1]", "[::1]:8000"):
        for headers in ([(b"host", own)], [(b"host", "localhost"), (b"origin", f"https://{own}")]):
            scope = {"type": "http", "path": "/", "method": "GET", "headers": [(n, v.encode()) for n, v in headers]}
            assert checked._refusal(scope) is None
    twice = [(b"host", b"evil.example"), (b"host", b"localhost")]
    assert checked._refusal({"type": "http", "path": "/", "method": "GET", "headers": twice})


def test_websockets(server: tuple[int, bool]) -> None:
    port, app_asks = server
    url = f"ws://127.0.0.1:{port}/events"
    with connect(url, additional_headers={"Authorization": TOKEN}) as socket_:
        assert socket_.recv() == "events"
    with pytest.raises(InvalidStatus, match="403"):
        connect(url, origin="http://evil.example", additional_headers={"Authorization": TOKEN})
    if app_asks:
        with connect(url) as socket_:
            assert socket_.recv() == "events"
    else:
        with pytest.raises(InvalidStatus, match="403"):
            connect(url)


def test_without_a_login_in_the_environment_no_server_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOSTS, "127.0.0.1:1")
    monkeypatch.delenv(LOGIN_VARIABLE, raising=False)
    with pytest.raises(ValueError, match="must be set"):
        HostCheck.of_environment(application(), set())
