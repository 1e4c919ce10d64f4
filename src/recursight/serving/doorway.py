"""Before everything else: is this request for us, how long does it take, and which version answers."""

import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from recursight.serving.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

PATHS = frozenset(("/predict", "/health", "/ready", "/metrics", "/openapi.json"))
OPEN = frozenset(("/health", "/ready"))  # probes come under any name
ANY = "*"


class Doorway:
    """ASGI middleware: refuses foreign hosts and pages, puts the version into every answer's head, and measures.

    A page of another site may make a browser send requests here, under its own name (DNS rebinding) or ours. The names
    in Host and Origin give both away.

    Args:
        app: behind it.
        hosts: names, without port, that clients may use; `*` for any.
        version: name and version of the model that serves now.
        metrics: are told of every answer.
    """

    def __init__(
        self, app: App, *, hosts: Collection[str], version: Callable[[], tuple[str, int]], metrics: Metrics
    ) -> None:
        self._app, self._hosts, self._version, self._metrics = app, frozenset(hosts), version, metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        path = scope["path"] if scope["path"] in PATHS else "other"
        started = time.perf_counter()
        status = 500

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self._names(message)]
            await send(message)

        self._metrics.at_work.inc()
        try:
            sentence = self._refusal(scope)
            if sentence is None:
                await self._app(scope, receive, send_on)
            else:
                await self._refuse(send_on, sentence)
        finally:
            self._metrics.at_work.dec()
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - started)

    def _names(self, message: Message) -> list[tuple[bytes, bytes]]:
        """The version that answered, as the app has said; else the one that would have."""
        if any(name == b"x-model-version" for name, _ in message.get("headers", ())):
            return []
        name, version = self._version()
        return [(b"x-model", name.encode("latin-1", "replace")), (b"x-model-version", str(version).encode())]

    def _refusal(self, scope: Message) -> str | None:
        if ANY in self._hosts or scope["path"] in OPEN:
            return None
        headers = dict(scope["headers"])
        if _name(headers.get(b"host", b"")) not in self._hosts:
            return "This server does not go by that host's name; `recursight serve --allow-host` adds one."
        origin = headers.get(b"origin")
        if origin is not None and _name(origin.partition(b"://")[2]) not in self._hosts:
            return "Pages of other hosts may not use this server."
        return None

    async def _refuse(self, send: Send, sentence: str) -> None:
        name, version = self._version()
        body = json.dumps({"error": sentence, "model": name, "version": version}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def names_of(host: str, allowed: Collection[str]) -> set[str]:
    """The names that a server may be called by, from the address that it listens at and what its owner adds."""
    names = {name.lower() for name in (host, *allowed)}
    return names | {"localhost", "127.0.0.1", "::1"} if is_loopback(host) else names


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: bytes) -> str:
    """The name without its port: localhost of localhost:8000, ::1 of [::1]:8000."""
    text = host.decode("latin-1").lower()
    return text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]
