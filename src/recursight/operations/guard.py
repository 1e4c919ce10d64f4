"""The guard before a server: known host, known origin, known user; an ASGI middleware.

Prefect's server checks neither Host nor Origin, and hands out its pages to anybody; MLflow's has no password without
a further package. So both stand behind the same guard.
"""

import base64
import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOGIN = "RECURSIGHT_GUARD_LOGIN"  # user:password
HOSTS = "RECURSIGHT_GUARD_HOSTS"  # host:port, ..., as browsers and clients name this server


class Guard:
    """Lets requests pass to an application.

    Args:
        app: the application.
        login: `user:password`, asked for by HTTP Basic.
        hosts: values of the Host header that are answered. Pages of these hosts are the only ones whose requests are.
        open_paths: what is answered without a login, by GET.
        app_asks_sockets: whether the application itself asks its websockets for the login, as Prefect's does.
    """

    def __init__(
        self, app: App, *, login: str, hosts: list[str], open_paths: set[str], app_asks_sockets: bool = False
    ) -> None:
        if not login or not hosts:
            raise ValueError(f"{LOGIN} and {HOSTS} must be set")
        self.app = app
        self.token = b"Basic " + base64.b64encode(login.encode())
        self.hosts = {host.encode() for host in hosts}
        self.origins = {scheme + host for host in self.hosts for scheme in (b"http://", b"https://")}
        self.open_paths = open_paths
        self.app_asks_sockets = app_asks_sockets

    @classmethod
    def of_environment(cls, app: App, open_paths: set[str], app_asks_sockets: bool = False) -> "Guard":
        hosts = [host.strip() for host in os.environ.get(HOSTS, "").split(",") if host.strip()]
        login = os.environ.get(LOGIN, "")
        return cls(app, login=login, hosts=hosts, open_paths=open_paths, app_asks_sockets=app_asks_sockets)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: HTTP 403
        else:
            await _answer(send, *refusal)

    def _refusal(self, scope: Message) -> tuple[int, bytes] | None:
        """Status and sentence, or None for a request that may pass."""
        headers = dict(scope["headers"])
        if headers.get(b"host") not in self.hosts:
            return 403, b"This server does not go by that host's name."
        if headers.get(b"origin") not in (None, *self.origins):
            return 403, b"Pages of other hosts may not use this server."
        if scope["type"] == "websocket" and self.app_asks_sockets:
            return None
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and scope["path"] in self.open_paths:
            return None
        if not hmac.compare_digest(headers.get(b"authorization", b""), self.token):
            return 401, b"Log in with the user and password of this project's .recursight/servers/logins.json."
        return None


async def _answer(send: Send, status: int, sentence: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(sentence)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="recursight"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": sentence})
