"""uvicorn's HTTP/1.1 connection, with a deadline for each request's head and a limit for each client."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from recursight.serving.measurement import version_headers

CONNECTIONS = 1000  # at once
PER_CLIENT = 250  # from one address, which may be a proxy's
HEAD_SECONDS = 30  # for a whole request head, after a connection was opened or a request answered


class Connection(H11Protocol):
    """One client's connection.

    Args:
        version: name and version of the model in production; refusals name it.
        settings: from uvicorn.
    """

    def __init__(self, *, version: Callable[[], tuple[str, int]], **settings: Any) -> None:
        super().__init__(**settings)
        self._version = version
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        own = self.client and self.client[0]
        clients = [other.client and other.client[0] for other in cast("set[Connection]", self.connections)]
        if len(clients) > CONNECTIONS or clients.count(own) > PER_CLIENT:
            self._refuse(503, "Too many connections: try again in a second.")
        else:
            self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_deadline()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "This is not valid HTTP.")

    def _should_upgrade(self) -> bool:
        return False  # there are no websockets here; a request to upgrade is answered as if it did not ask

    def _watch_head(self) -> None:
        """Lets a deadline run while a head is awaited, and only then."""
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._stop_deadline()
        elif self._deadline is None:
            refusal = 408, f"No request arrived within {HEAD_SECONDS} seconds."
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._refuse, *refusal)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: int, sentence: str) -> None:
        """Answers without asking the application, and closes the connection."""
        name, version = self._version()
        body = json.dumps({"error": sentence, "model": name, "version": version}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        with suppress(h11.LocalProtocolError):  # an answer is under way: only close
            answer = h11.Response(
                status_code=status,
                headers=list((headers | version_headers(name, version)).items()),
                reason=HTTPStatus(status).phrase.encode(),
            )
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
