"""The way to MLflow."""

import os
import subprocess
import sys
import time

import pytest

from recursight.errors import InputError
from recursight.layout import Layout
from recursight.tracking import Unreachable, connect, ensure_store
from recursight.tracking.connection import experiment_id, fluent, tracking_uri, without_password
from tests.tracking.servers import free_port


def test_the_store_is_a_file_in_the_project_unless_the_environment_names_another(project, monkeypatch):
    assert tracking_uri(project) == f"sqlite:///{project.root}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    assert tracking_uri(project) == "http://elsewhere:5000"


def test_an_experiment_in_a_copy_that_dvc_makes_is_tracked_where_the_project_is(tmp_path):
    copy = Layout(tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmp123")
    assert tracking_uri(copy) == tracking_uri(Layout(tmp_path))


def test_processes_that_meet_a_missing_database_at_once_all_get_in(tmp_path):
    code = (
        "import sys; from pathlib import Path; from recursight.layout import Layout\n"
        "from recursight.tracking import connect, ensure_store\n"
        "from recursight.tracking.connection import experiment_id\n"
        "layout = Layout(Path(sys.argv[1])); ensure_store(layout); client = connect(layout)\n"
        "client.create_run(experiment_id(client, layout, 'together'))\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE) for _ in "1234"]
    errors = [process.communicate(timeout=600)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], "\n".join(errors)
    layout = Layout(tmp_path)
    client = connect(layout)
    assert len(client.search_runs([experiment_id(client, layout, "together")])) == 4


def test_a_kill_while_the_database_is_made_leaves_none_or_a_whole_one(tmp_path):
    code = (
        "import sys; from pathlib import Path; from recursight.layout import Layout\n"
        "from recursight.tracking import ensure_store\n"
        "ensure_store(Layout(Path(sys.argv[1])))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in tmp_path.glob(".mlflow.db.*/mlflow.db")):
        assert time.monotonic() < deadline, "its first tables were never seen"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "mlflow.db").exists()
    assert connect(Layout(tmp_path)).search_experiments()
    assert not list(tmp_path.glob(".mlflow.db.*/")), "what the killed one left is swept away"


def test_a_server_that_is_not_there_is_said_at_once_and_without_its_password(project, monkeypatch):
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(Unreachable, match=f"tracking server http://127.0.0.1:{port} cannot be reached"):
        ensure_store(project)
    assert time.monotonic() - started < 60


def test_a_password_is_left_out_and_all_else_kept():
    assert without_password("postgresql://me:secret@host:5/db?ssl=1") == "postgresql://host:5/db?ssl=1"
    assert without_password("sqlite:////a/mlflow.db") == "sqlite:////a/mlflow.db"


def test_a_run_of_the_parent_process_is_not_written_over(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123")
    connect(project)
    assert "MLFLOW_RUN_ID" not in os.environ


def test_a_deleted_experiment_is_named_with_the_way_to_restore_it(project):
    client = connect(project)
    found = experiment_id(client, project, "digits")
    assert experiment_id(client, project, "digits") == found
    client.delete_experiment(found)
    with pytest.raises(InputError, match=f"mlflow experiments restore -x {found}"):
        experiment_id(client, project, "digits")


def test_the_global_store_is_as_before_after_a_block(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    connect(project)
    with fluent(project) as mlflow:
        assert mlflow.get_tracking_uri() == f"sqlite:///{project.root}/mlflow.db"
    assert os.environ["MLFLOW_TRACKING_URI"] == ""
    assert "MLFLOW_REGISTRY_URI" not in os.environ
