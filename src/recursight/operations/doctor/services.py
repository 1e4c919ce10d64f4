"""Checks of servers and worker: whether they run, are healthy, and accept the login."""

import os
import stat
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator

from recursight import access
from recursight.layout import Layout
from recursight.operations.doctor.finding import Finding
from recursight.operations.prefect_api import PrefectApi
from recursight.operations.services import POOL

TIMEOUT_SECONDS = 4.0
START = ("recursight up",)
ANEW = ("recursight down", "recursight up")
CHECKED = {"prefect": "/api/admin/version", "mlflow": "/version"}  # require a login
HEALTH = {"prefect": "/api/health", "mlflow": "/health"}


def logins(layout: Layout) -> Iterator[Finding]:
    """The file of users and passwords: complete, and readable by its owner only."""
    path = access.folder(layout) / "logins.json"
    if not path.exists():
        return
    name = path.relative_to(layout.root)
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        whole = set(access.logins(layout)) >= set(CHECKED)
    except (ValueError, TypeError):
        whole = False
    if not whole:
        yield Finding("logins", "fix", f"{name} is broken", ("recursight down", f"rm {name}", "recursight up"))
    elif mode & 0o077:
        yield Finding("logins", "fix", f"others can read {name} (mode {mode:o})", (f"chmod 600 {name}",))
    else:
        yield Finding("logins", "ok", f"only you can read {name} (mode {mode:o})")


def servers(layout: Layout) -> Iterator[Finding]:
    """Servers that `recursight up` started, or that the environment names."""
    for name in CHECKED:
        if (other := _other(layout, name)) is not None:
            yield other
            continue
        known = access.running(layout, name)
        if known is None:
            yield Finding(name, "ok", "no server runs and none is needed; `recursight up` starts one")
        elif not known.is_alive:
            yield Finding(name, "fix", f"the server at {known.url} has died; see .recursight/logs/{name}.log", START)
        else:
            yield _examine(layout, name, str(known.url))


def worker(layout: Layout) -> Iterator[Finding]:
    known = access.running(layout, "worker")
    prefect = access.running(layout, "prefect")
    if known is None:
        if prefect is not None:
            yield Finding("worker", "fix", "no worker runs, so deployed runs do not start", START)
    elif not known.is_alive:
        yield Finding("worker", "fix", "the worker has died; see .recursight/logs/worker.log", START)
    elif prefect and prefect.is_alive:
        yield _online(layout)


def _examine(layout: Layout, name: str, url: str) -> Finding:
    """Checks the health without a login, then a page that requires it."""
    health = _status(url + HEALTH[name])
    if health != 200:
        return Finding(name, "fix", f"the server at {url} runs but is not healthy: {_in_words(health)}", ANEW)
    try:
        login = access.logins(layout)[name]
    except (OSError, ValueError, KeyError, TypeError):
        return Finding(
            name, "fix", f"the server at {url} is healthy, but the file with its login is missing or broken", ANEW
        )
    entered = _status(url + CHECKED[name], login)
    if entered != 200:
        return Finding(name, "fix", f"the server at {url} does not accept the login: {_in_words(entered)}", ANEW)
    return Finding(name, "ok", f"{url} is healthy and accepts the login")


def _other(layout: Layout, name: str) -> Finding | None:
    """A server that the environment names and `recursight up` did not start; None if there is none."""
    variable = {"prefect": "PREFECT_API_URL", "mlflow": "MLFLOW_TRACKING_URI"}[name]
    url = os.environ.get(variable, "").rstrip("/")
    own = access.urls(layout).get(name)
    if not url.startswith(("http://", "https://")) or (own and url.removesuffix("/api") == own):
        return None
    status = _status(url.removesuffix("/api") + HEALTH[name])
    if status == 200:
        return Finding(name, "ok", f"{_without_password(url)} ({variable}) is healthy")
    return Finding(name, "fix", f"{_without_password(url)} ({variable}): {_in_words(status)}", (f"unset {variable}",))


def _online(layout: Layout) -> Finding:
    try:
        found = PrefectApi.of_project(layout, TIMEOUT_SECONDS).ask(f"/work_pools/{POOL}/workers/filter", {})
    except (OSError, ValueError, KeyError):
        return Finding("worker", "note", "it runs, but the server does not answer whether it is online")
    if any(each["status"] == "ONLINE" for each in found):
        return Finding("worker", "ok", f"online in the work pool {POOL}")
    return Finding("worker", "fix", "it runs, but the server has not heard from it for a while", ANEW)


def _status(url: str, login: str = "") -> int | str:
    """The HTTP status, or why there is none."""
    request = urllib.request.Request(url, headers=PrefectApi(url, login).headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except TimeoutError:
        return f"no answer in {TIMEOUT_SECONDS:.0f} s"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def _in_words(status: int | str) -> str:
    return f"HTTP {status}" if isinstance(status, int) else status


def _without_password(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
