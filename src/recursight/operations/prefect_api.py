"""A client of Prefect's REST API; it imports Prefect only if the environment names no server."""

import base64
import json
import os
import urllib.request
from dataclasses import dataclass
from typing import Any

from recursight import access
from recursight.layout import Layout


@dataclass(frozen=True)
class PrefectApi:
    """A Prefect server.

    Attributes:
        url: of its API.
        login: `user:password`; empty where none is required.
        key: of Prefect Cloud; empty elsewhere.
        timeout_seconds: of one request.
    """

    url: str
    login: str = ""
    key: str = ""
    timeout_seconds: float = 10.0

    @classmethod
    def configured(cls, timeout_seconds: float = 10.0) -> "PrefectApi | None":
        """The server in Prefect's settings (environment, prefect.toml or profile); None if there is none."""
        if "PREFECT_API_URL" in os.environ:
            url, login, key = (os.environ.get(f"PREFECT_API_{name}", "") for name in ("URL", "AUTH_STRING", "KEY"))
        else:
            from prefect.settings import get_current_settings

            api = get_current_settings().api
            url = api.url or ""
            login, key = (secret.get_secret_value() if secret else "" for secret in (api.auth_string, api.key))
        return cls(url.rstrip("/"), login, key, timeout_seconds) if url else None

    @classmethod
    def of_project(cls, layout: Layout, timeout_seconds: float = 10.0) -> "PrefectApi":
        """The server of `recursight up`; raises ConnectionError if it does not run."""
        settings = access.settings(layout)
        if "PREFECT_API_URL" not in settings:
            raise ConnectionError("no Prefect server runs for this project")
        return cls(settings["PREFECT_API_URL"], settings["PREFECT_API_AUTH_STRING"], timeout_seconds=timeout_seconds)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of each request."""
        headers = {"Content-Type": "application/json"}
        if self.login:
            headers["Authorization"] = f"Basic {base64.b64encode(self.login.encode()).decode()}"
        elif self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        return headers

    def ask(self, path: str, body: Any = None, method: str = "POST") -> Any:
        """Sends a request and returns the JSON response; raises OSError if it fails."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", content, self.headers, method=method)
        with urllib.request.urlopen(request, timeout=self.timeout_seconds) as answer:
            text = answer.read()
        return json.loads(text) if text else None
