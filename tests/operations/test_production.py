"""The production set-up of docs/operations.md for real: PostgreSQL under both servers, S3 under DVC and MLflow."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.platforms import QUICK, TINY, Platform, running
from tests.tracking.servers import free_port
from tests.workspace import Workspace

PACKAGES = ("boto3", "dvc_s3", "moto", "psycopg2")
PASSWORD = "only-for-this-test"


COMMANDS = ("postgres", "initdb", "pg_isready", "psql", "pg_dump", "pg_restore", "createdb", "dropdb")


def postgres_commands() -> Path | None:
    """Debian keeps them off the PATH."""
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    candidates += [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
    return next((folder for folder in candidates if all((folder / name).exists() for name in COMMANDS)), None)


absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
absent += [] if postgres_commands() else ["postgresql"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}"),
]


class Postgres:
    """A PostgreSQL of its own; it refuses to run as root, so then it runs as the user that its package made."""

    def __init__(self) -> None:
        self.commands = postgres_commands()
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="recursight-postgres-"))
        self.user = "postgres" if os.getuid() == 0 else None
        if self.user:
            shutil.chown(self.folder, self.user)
        (self.folder / "password").write_text(PASSWORD)
        self.run("initdb", "-D", "data", "-U", "postgres", "-A", "scram-sha-256", "--pwfile=password", "--no-sync")
        command = [str(self.commands / "postgres"), "-D", "data", "-h", "127.0.0.1", "-p", str(self.port), "-k", "."]  # type: ignore[operator]
        with (self.folder / "log").open("wb") as log:
            self.server = subprocess.Popen(command, cwd=self.folder, user=self.user, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while self.run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), check=False).returncode:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.1)

    def run(self, name: str, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(self.commands / name), *arguments],  # type: ignore[operator]
            cwd=self.folder,
            user=self.user,
            env={"PGPASSWORD": PASSWORD, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=check,
        )

    def sql(self, database: str, statement: str) -> str:
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database]
        return self.run("psql", *where, "-At", "-c", statement).stdout.strip()

    def url(self, driver: str, database: str) -> str:
        return f"postgresql+{driver}://postgres:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def stop(self) -> None:
        self.server.terminate()
        self.server.wait(30)
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    for name in ("prefect", "mlflow"):
        server.sql("postgres", f"create database {name} encoding 'UTF8' template template0")  # initdb took LANG's
    yield server
    server.stop()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which S3 is a server on this machine, with a bucket."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (tmp_path_factory.mktemp("s3") / "log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{url}/models", method="PUT"), timeout=5):
                break
        except urllib.error.HTTPError as error:
            error.close()
            raise
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        "MLFLOW_S3_ENDPOINT_URL": url,
    }
    server.terminate()
    server.wait(30)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, s3: dict[str, str]) -> Iterator[Platform]:
    workspace = Workspace(tmp_path_factory.mktemp("production"))
    workspace.environment |= QUICK | s3
    workspace.environment |= {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": postgres.url("asyncpg", "prefect"),
        "MLFLOW_BACKEND_STORE_URI": postgres.url("psycopg2", "mlflow"),
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://models/mlflow",
    }
    workspace.change_params(**TINY, retrain={"schedule": False})
    workspace.run("dvc", "pull", "--quiet", "data.dvc")
    workspace.run("dvc", "remote", "add", "--default", "storage", "s3://models/dvc")
    workspace.run("dvc", "remote", "modify", "storage", "endpointurl", s3["AWS_ENDPOINT_URL"])
    workspace.commit("production")
    with running(workspace) as made:
        yield made


def objects(prefix: str, s3: dict[str, str]) -> list[str]:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=s3["AWS_ENDPOINT_URL"],
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )
    try:
        found = client.list_objects_v2(Bucket="models", Prefix=prefix).get("Contents", [])
    finally:
        client.close()
    return [entry["Key"] for entry in found]


def versions(platform: Platform) -> list[str]:
    answer = platform.ask("mlflow", "/api/2.0/mlflow/model-versions/search?max_results=100")
    return [version["version"] for version in answer.get("model_versions", [])]


def test_a_deployed_retraining_writes_to_postgresql_and_s3(
    platform: Platform, postgres: Postgres, s3: dict[str, str]
) -> None:
    output = platform.workspace.run("prefect", "deployment", "run", "retrain/scheduled", "--watch")
    assert "Retrained" in output
    assert versions(platform) == ["1"]
    assert postgres.sql("mlflow", "select count(*) from model_versions") == "1"
    assert int(postgres.sql("prefect", "select count(*) from flow_run where state_name = 'Retrained'")) == 1
    assert any(name.endswith("network.pt2") for name in objects("mlflow/", s3))
    assert not (platform.workspace.root / "mlflow.db").exists()
    assert not list((platform.workspace.root / ".recursight").rglob("prefect.db"))


def test_the_champion_comes_back_from_s3(platform: Platform) -> None:
    from PIL import Image

    Image.new("L", (8, 8)).save(platform.workspace.root / "black.png")
    assert "%" in platform.workspace.run("recursight", "predict", "black.png")


def test_another_clone_takes_data_and_results_from_the_remote(platform: Platform, s3: dict[str, str]) -> None:
    workspace = platform.workspace
    text = (workspace.root / "data.dvc").read_text()
    (workspace.root / "data.dvc").write_text(text.replace("  remote: embedded\n", ""))
    workspace.commit("data is in our own storage")
    workspace.run("dvc", "push", "--quiet", "--run-cache")
    assert objects("dvc/files/md5/", s3)
    clone = workspace.root.parent / "clone"
    workspace.run("git", "clone", "--quiet", str(workspace.root), str(clone))
    workspace.run("git", "-C", str(clone), "rm", "-rq", "--ignore-unmatch", "embedded")
    output = workspace.run("sh", "-c", f"cd {clone} && dvc repro --pull 2>&1")
    assert "Running stage" not in output
    ours, theirs = (root / "artifacts" / "comparison" / "comparison.json" for root in (workspace.root, clone))
    assert json.loads(theirs.read_text()) == json.loads(ours.read_text())


def test_backup_and_restore(platform: Platform, postgres: Postgres) -> None:
    where = ["-h", "127.0.0.1", "-p", str(postgres.port), "-U", "postgres"]
    before = versions(platform), len(platform.retrainings())
    platform.workspace.run("recursight", "down")
    for name in ("prefect", "mlflow"):
        postgres.run("pg_dump", *where, "--format=custom", f"--file={name}.dump", name)
        postgres.run("dropdb", *where, name)
        postgres.run("createdb", *where, "--encoding=UTF8", "--template=template0", name)
        postgres.run("pg_restore", *where, "--exit-on-error", f"--dbname={name}", f"{name}.dump")
    platform.up()
    assert (versions(platform), len(platform.retrainings())) == before
    assert "Unchanged" in platform.workspace.run("prefect", "deployment", "run", "retrain/scheduled", "--watch")
