"""The connection to MLflow: which store, its creation, and the error for one that cannot be reached."""

import logging
import os
import socket
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from recursight.errors import InputError
from recursight.files import replacing
from recursight.layout import Layout

if TYPE_CHECKING:
    from mlflow import MlflowClient

PATIENT = {"MAX_RETRIES": "5", "TIMEOUT": "30", "BACKOFF_FACTOR": "1"}
HASTY = {"MAX_RETRIES": "1", "TIMEOUT": "10", "BACKOFF_FACTOR": "1"}


class Unreachable(InputError):
    """The tracking store does not answer, or answers with errors. What was not sent stays on disk."""


def unreachable(uri: str, cause: Exception | None, consequence: str) -> Unreachable:
    """The error, with the cause if there was a response."""
    named = f" ({first_line(cause)})" if cause and not isinstance(cause, Unreachable) else ""
    return Unreachable(f"tracking server {without_password(uri)} cannot be reached{named}: {consequence}")


def outages() -> tuple[type[Exception], ...]:
    """Exceptions of a store that is down, slow or broken."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return (Unreachable, MlflowException, RequestException, SQLAlchemyError, OSError)


def tracking_uri(layout: Layout) -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file in the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_home(layout) / 'mlflow.db'}"


def registry_uri(layout: Layout) -> str:
    return os.environ.get("MLFLOW_REGISTRY_URI") or tracking_uri(layout)


def artifact_location(layout: Layout) -> str | None:
    """Where an experiment's files go; None with a server, which decides that itself."""
    uri = tracking_uri(layout)
    return None if uri.startswith(("http://", "https://")) else (_home(layout) / "mlartifacts").as_uri()


def connect(layout: Layout, http: dict[str, str] = PATIENT) -> "MlflowClient":
    """Opens the store, which is created if it is a database that does not exist yet.

    Args:
        layout: of the project.
        http: retries and timeouts in seconds of requests, where the environment does not set them.

    Raises:
        Unreachable: if the store does not answer.
    """
    _settle_environment(http)
    uri = tracking_uri(layout)
    if uri.startswith(("http://", "https://")) and not _listens(uri):
        raise unreachable(uri, None, "start it, or set MLFLOW_TRACKING_URI to one that runs.")
    from mlflow import MlflowClient

    _silence()
    try:
        with _creating(uri):
            _create_whole(uri)
            client = MlflowClient(tracking_uri=uri, registry_uri=registry_uri(layout))
            client.search_experiments(max_results=1)
    except outages() as error:
        raise unreachable(uri, error, "start it, or set MLFLOW_TRACKING_URI to one that runs.") from None
    return client


def ensure_store(layout: Layout) -> None:
    """Creates the store before several processes need it; does little if it exists. Raises Unreachable."""
    connect(layout)


def experiment_id(client: "MlflowClient", layout: Layout, name: str) -> str:
    """Finds or creates an experiment.

    Raises:
        InputError: if it was deleted in MLflow.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifact_location(layout)))
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise InputError(
            f"MLflow's experiment {name!r} is deleted: name another in params.yaml (registry.experiment), or restore "
            f"it with `mlflow experiments restore -x {found.experiment_id}`."
        )
    return str(found.experiment_id)


@contextmanager
def fluent(layout: Layout) -> Iterator[Any]:
    """Points MLflow's global functions at the project's store for the duration of a block, and yields `mlflow`."""
    import mlflow

    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    tracking, registry = tracking_uri(layout), registry_uri(layout)
    mlflow.set_tracking_uri(tracking)
    mlflow.set_registry_uri(registry)
    try:
        yield mlflow
    finally:
        mlflow.set_tracking_uri("")
        mlflow.set_registry_uri("")
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def without_password(uri: str) -> str:
    parts = urllib.parse.urlsplit(uri)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.password else uri


def first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


def _home(layout: Layout) -> Path:
    """The project's folder, even from one of the copies in which `dvc exp run --temp` and `--queue` work."""
    for folder in layout.root.parents:
        if folder.parts[-3:] == (".dvc", "tmp", "exps"):
            return folder.parents[2]
    return layout.root


def _settle_environment(http: dict[str, str]) -> None:
    os.environ.pop("MLFLOW_RUN_ID", None)  # of a parent process: its run would be overwritten
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    for name, value in http.items():
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)


def _silence() -> None:
    """Limits MLflow and its database migrations, which log every step, to warnings."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def _listens(uri: str, attempts: int = 2, timeout_seconds: float = 3) -> bool:
    """Whether anything accepts connections there; quicker than HTTP's retries, which take half a minute."""
    parts = urllib.parse.urlsplit(uri)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    for attempt in range(attempts):
        try:
            with socket.create_connection((parts.hostname or "", port), timeout=timeout_seconds):
                return True
        except OSError:
            time.sleep(0.2 * (attempt + 1 < attempts))
    return False


def _create_whole(uri: str) -> None:
    """Creates a SQLite file's tables under a temporary name, and then renames the file.

    A process killed meanwhile would leave some tables, and MLflow would then fail (`table ... already exists`).
    """
    if not uri.startswith("sqlite:///") or (file := database(uri)).exists():
        return
    from mlflow import MlflowClient

    with replacing(file) as temporary:
        MlflowClient(tracking_uri=f"sqlite:///{temporary}").search_experiments(max_results=1)


def _creating(uri: str) -> Any:
    """Locks a SQLite file against other processes: the first connection creates its tables, which must happen once."""
    if not uri.startswith("sqlite:///"):
        return nullcontext()
    file = database(uri)
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(file.with_name(f".{file.name}.lock"))


def database(uri: str) -> Path:
    """The file of a `sqlite:///` address."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])
