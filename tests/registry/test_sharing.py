"""Clones that share one tracking server: one run and one version of each bundle, and one champion."""

import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from recursight.layout import Layout
from recursight.registry import CHAMPION, register
from recursight.registry.decisions import history
from recursight.registry.versions import version_with
from recursight.tracking import connect
from recursight.tracking.connection import experiment_id
from recursight.tracking.runs import BUNDLE
from tests.projects import choose
from tests.tracking.conftest import server
from tests.tracking.servers import Server

__all__ = ["server"]


@pytest.mark.slow
def test_four_clones_that_register_at_once(project: Layout, server: Server, tmp_path: Path) -> None:
    """Two register gru, two elman."""
    clones = [Layout(tmp_path / f"clone-{number}") for number in range(4)]
    for number, clone in enumerate(clones):
        shutil.copytree(project.root, clone.root)
        choose(clone, ("gru", "elman")[number % 2])
    os.environ["MLFLOW_TRACKING_URI"] = server.uri
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=register, args=(clone,)) for clone in clones]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0] * 4
    client = connect(project)
    runs = client.search_runs([experiment_id(client, project, "recursight")])
    assert sorted((run.info.run_name, run.info.status) for run in runs) == [("elman", "FINISHED"), ("gru", "FINISHED")]
    versions = client.search_model_versions("name = 'recursight'")
    assert len({version.tags[BUNDLE] for version in versions}) == len(versions) == 2
    assert {version.run_id for version in versions} == {run.info.run_id for run in runs}
    moves = [decision for decision in history(client, "recursight") if decision.promoted]
    champion = version_with(client, "recursight", CHAMPION)
    assert champion is not None
    assert [move.version for move in moves] == [int(champion.version)]
