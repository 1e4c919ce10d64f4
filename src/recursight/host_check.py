"""The host check, an ASGI middleware: a server answers only to its own names, its own pages, and its own users.

A page of another site may make a browser send requests to 127.0.0.1, under the page's own name (DNS rebinding) or the
server's. The Host and Origin headers reveal both.
"""

import base64
import hmac
import ipaddress
import os
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOGIN = "RECURSIGHT_LOGIN"  # user:password
HOSTS = "RECURSIGHT_HOSTS"  # name:port, ..., as browsers and clients name this server
ANY = "*"
LOGIN_WANTED = 401
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^][:/?#@\\\s]*))(?::([0-9]{1,5}))?")  # RFC 3986: host, and port if any
_ORIGIN = re.compile(r"https?://([^/?#]+)")  # RFC 6454; the host follows the rules above


def plain(status: int, sentence: str) -> tuple[bytes, bytes]:
    return b"text/plain", sentence.encode()


class HostCheck:
    """Lets requests pass to an application.

    Args:
        app: the application.
        hosts: names that are answered, as `name:port`, or `name` for any port, or `*`. Requests that pages of other
            hosts send are refused.
        login: `user:password`, required by HTTP Basic; None for no login.
        login_sentence: of the refusal without it.
        any_host: paths that are answered under any name, for probes.
        no_login: paths that are answered without a login, to GET and HEAD.
        app_asks_sockets: whether the application itself requires the login of its websockets, as Prefect's does.
        body: makes content type and body of a refusal from status and sentence.
    """

    def __init__(
        self,
        app: App,
        hosts: Collection[str],
        *,
        login: str | None = None,
        login_sentence: str = "Log in with user and password.",
        any_host: Collection[str] = (),
        no_login: Collection[str] = (),
        app_asks_sockets: bool = False,
        body: Callable[[int, str], tuple[bytes, bytes]] = plain,
    ) -> None:
        self.app, self.hosts, self.body = app, frozenset(hosts), body
        self.token = None if login is None else b"Basic " + base64.b64encode(login.encode())
        self.login_sentence, self.app_asks_sockets = login_sentence, app_asks_sockets
        self.any_host, self.no_login = frozenset(any_host), frozenset(no_login)

    @classmethod
    def of_environment(cls, app: App, no_login: Collection[str], app_asks_sockets: bool = False) -> "HostCheck":
        """With the login and the hosts that the environment holds, both required."""
        hosts = [host.strip() for host in os.environ.get(HOSTS, "").split(",") if host.strip()]
        login = os.environ.get(LOGIN, "")
        if not login or not hosts:
            raise ValueError(f"{LOGIN} and {HOSTS} must be set")
        sentence = "Log in with the user and password of this project's .recursight/servers/logins.json."
        return cls(
            app,
            hosts,
            login=login,
            login_sentence=sentence,
            no_login=no_login,
            app_asks_sockets=app_asks_sockets,
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: HTTP 403
        else:
            await self._refuse(send, *refusal)

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        """Status and sentence; None for a request that may pass."""
        headers, path = dict(scope["headers"]), scope["path"]
        if path not in self.any_host:
            hosts, origins = (
                [value.decode("latin-1").lower() for name, value in scope["headers"] if name == wanted]
                for wanted in (b"host", b"origin")
            )
            if len(hosts) > 1 or not self._is_own("".join(hosts)):
                return 403, "This server does not go by that host's name."
            if not all((found := _ORIGIN.fullmatch(origin)) and self._is_own(found[1]) for origin in origins):
                return 403, "Pages of other hosts may not use this server."
        if self.token is None or (scope["type"] == "websocket" and self.app_asks_sockets):
            return None
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and path in self.no_login:
            return None
        if not hmac.compare_digest(headers.get(b"authorization", b""), self.token):
            return LOGIN_WANTED, self.login_sentence
        return None

    def _is_own(self, host: str) -> bool:
        name = name_of(host)
        return name is not None and bool({ANY, host, name} & self.hosts)

    async def _refuse(self, send: Send, status: int, sentence: str) -> None:
        kind, body = self.body(status, sentence)
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        if status == LOGIN_WANTED:
            headers.append((b"www-authenticate", b'Basic realm="recursight"'))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def name_of(host: str) -> str | None:
    """The name without its port: localhost of localhost:8000, ::1 of [::1]:8000; None if it is no host."""
    found = _HOST.fullmatch(host)
    return found and (found[1] or found[2])


def names_of(host: str, allowed: Collection[str]) -> set[str]:
    """The names of a server, from the address that it listens at and what its owner allows."""
    names = {name.lower() for name in (host, *allowed)}
    return names | {"localhost", "127.0.0.1", "::1"} if is_loopback(host) else names


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
