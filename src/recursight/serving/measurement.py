"""Middleware that counts and times all answers, and names in each the version that gave it."""

import string
import time
from collections.abc import Callable
from urllib.parse import quote

from recursight.host_check import App, Message, Receive, Send
from recursight.serving.metrics import Metrics

PATHS = frozenset(("/predict", "/health", "/ready", "/metrics", "/openapi.json"))


def version_headers(name: str, version: int) -> dict[str, str]:
    """The headers that name a version; characters that headers do not allow are percent-encoded (no name has a %)."""
    return {"x-model": quote(name, safe=string.punctuation + " "), "x-model-version": str(version)}


class Measurement:
    """ASGI middleware, outermost, so that refusals are counted too. HEAD is answered as GET, and uvicorn sends no body.

    Args:
        app: behind it.
        version: name and version of the model in production.
        metrics: what is measured.
    """

    def __init__(self, app: App, *, version: Callable[[], tuple[str, int]], metrics: Metrics) -> None:
        self._app, self._version, self._metrics = app, version, metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
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
            await self._app({**scope, "method": "GET"} if scope["method"] == "HEAD" else scope, receive, send_on)
        finally:
            self._metrics.at_work.dec()
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - started)

    def _names(self, message: Message) -> list[tuple[bytes, bytes]]:
        """The version that answered, unless the application has named it; for a refusal, the one in production."""
        if any(name == b"x-model-version" for name, _ in message.get("headers", ())):
            return []
        return [(name.encode(), value.encode()) for name, value in version_headers(*self._version()).items()]
