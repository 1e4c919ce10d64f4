"""The gate on real registered models: the champion, the history, and rollback."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from recursight.cli import app
from recursight.data.prepare import prepare
from recursight.errors import InputError
from recursight.files import read_json, write_json
from recursight.layout import Layout
from recursight.processes import ProcessIdentity
from recursight.registry import (
    CHALLENGER,
    CHAMPION,
    history,
    production_status,
    promote,
    register,
    rollback,
    settle,
    version_with,
)
from recursight.registry.decisions import SEQUENCE, Decision, decide, experiment_name
from recursight.tasks import TASKS
from recursight.tasks.classification import Classification
from recursight.tracking import connect
from recursight.tracking.runs import PROCESS
from tests.projects import change_params, choose, copy_whole

NAME = "recursight"


@pytest.fixture(scope="session")
def contested(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1, gru, is champion; version 2, elman, which is better by far, challenges it. Only read it."""
    root = tmp_path_factory.mktemp("contested") / "project"
    shutil.copytree(trained, root)
    layout = Layout(root)
    content = yaml.safe_load(layout.params.read_text())
    layout.params.write_text(yaml.safe_dump(content | {"gate": {"maximum_slice_loss": 0.5}}))
    register(layout)
    choose(layout, "elman")
    register(layout)
    return root


@pytest.fixture
def contest(contested: Path, tmp_path: Path) -> Layout:
    """A copy of it."""
    return copy_whole(contested, tmp_path / "project")


def bearer(layout: Layout, alias: str) -> int | None:
    version = version_with(connect(layout), NAME, alias)
    return version and int(version.version)


def decisions(layout: Layout) -> list[Decision]:
    return history(connect(layout), NAME)


def test_a_better_challenger_becomes_champion_and_the_history_says_why(contest):
    made = promote(contest)
    assert (made.version, made.champion, made.promoted) == (2, 1, True)
    assert (bearer(contest, CHAMPION), bearer(contest, CHALLENGER)) == (2, None)
    newest, first = decisions(contest)
    assert newest == made
    assert (first.kind, first.version, first.promoted) == ("first", 1, True)
    metrics = {name: read_json(contest.evaluation_of(name, 0) / "metrics.json") for name in ("gru", "elman")}
    for role, name in (("challenger", "elman"), ("champion", "gru")):
        assert made.numbers[role]["accuracy"] == metrics[name]["test"]["accuracy"], "registered model and evaluation"
        assert made.numbers[role]["parameters"] == metrics[name]["parameters"]
    assert made.data_digest == metrics["gru"]["data_digest"]
    assert made.data_md5 == "0123456789abcdef0123456789abcdef.dir"
    assert promote(contest).version is None, "nobody challenges any more"


def test_a_worse_challenger_stays_out_and_asking_again_changes_nothing(project):
    choose(project, "elman")
    register(project)
    choose(project, "gru")
    register(project)
    made = promote(project)
    assert not made.promoted
    assert "not shown to be better" in made.reason
    assert (bearer(project, CHAMPION), bearer(project, CHALLENGER)) == (1, 2)
    again = promote(project)
    assert again.repeated
    assert again.id == made.id
    assert len(decisions(project)) == 2
    change_params(project, "registry", minimums={"accuracy": 0.35, "worst_class_recall": 0.0})
    assert promote(project).numbers["look"] == 2, "another rule is another question, and another look"


def _change_values(layout: Layout, change: Callable[[pd.Series], pd.Series]) -> None:
    path = layout.store / "targets.parquet"
    targets = pd.read_parquet(path)
    targets.assign(value=change(targets["value"])).to_parquet(path, index=False)


def test_other_classes_are_said_plainly_and_nothing_moves(contest):
    _change_values(contest, lambda values: values.cat.rename_categories({"9": "ten"}))
    made = promote(contest)
    assert not made.promoted
    assert "lacks 'ten' and additionally has '9'" in made.reason
    assert bearer(contest, CHAMPION) == 1
    promote(contest)
    assert len(decisions(contest)) == 2, "the same refusal is not recorded twice"


def test_classes_in_another_order_are_the_same_classes(contest):
    straight = promote(contest)
    rollback(contest, 1)
    _change_values(contest, lambda values: values.cat.reorder_categories(values.cat.categories[::-1]))
    summary = read_json(contest.store / "store.json")
    write_json(contest.store / "store.json", summary | {"digest": "turned"})  # so that it is asked anew
    connect(contest).delete_run(decisions(contest)[0].id)  # the rollback
    connect(contest).set_registered_model_alias(NAME, CHALLENGER, "2")
    connect(contest).delete_run(straight.id)
    assert promote(contest).numbers == straight.numbers


def test_another_task_is_said_plainly_and_nothing_moves(contest, monkeypatch):
    class Other(Classification):
        pass

    monkeypatch.setitem(TASKS, "other", Other)
    content = yaml.safe_load(contest.params.read_text())
    contest.params.write_text(yaml.safe_dump(content | {"task": "other"}))
    made = promote(contest)
    assert not made.promoted
    assert "version 2 was trained for another task than 'other'" in made.reason


def test_an_unreadable_champion_is_said_plainly_and_nothing_moves(contest):
    path = _network(contest, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    made = promote(contest)
    assert not made.promoted
    assert "version 1 cannot be loaded" in made.reason
    assert bearer(contest, CHAMPION) == 1
    path.write_bytes(whole)
    assert promote(contest).promoted, "what could not be read is asked again"


def _network(layout: Layout, version: int) -> Path:
    model_id = connect(layout).get_model_version(NAME, str(version)).source.rpartition("/")[2]
    (path,) = (layout.root / "mlartifacts" / "models" / model_id).rglob("network.pt2")
    return path


def test_a_champion_of_another_size_gets_images_prepared_its_own_way(contest, digits):
    shutil.copytree(digits, contest.data)
    shutil.rmtree(contest.store)
    prepare(contest.data, contest.store, size=(12, 12))
    (contest.root / "dvc.lock").unlink()
    change_params(contest, "registry", minimums={"accuracy": 0.3, "worst_class_recall": 0.0})
    content = yaml.safe_load(contest.params.read_text())
    contest.params.write_text(yaml.safe_dump(content | {"prepare": {"size": [12, 12]}}))
    made = promote(contest)
    assert made.numbers["examples"] > 300
    assert made.numbers["challenger"]["accuracy"] > 0.7, "8×8 versions on the raw 8×8 images, of a 12×12 store"


def test_rollback_checks_records_and_is_not_undone_by_the_gate(contest):
    promote(contest)
    back = rollback(contest, reason="wrong on new scans")
    assert (back.version, back.champion, back.kind) == (1, 2, "rollback")
    assert bearer(contest, CHAMPION) == 1
    assert "wrong on new scans" in decisions(contest)[0].reason
    assert register(contest).alias == "challenger", "version 2 still wins the comparison"
    refused = promote(contest)
    assert not refused.promoted
    assert "recursight rollback 2" in refused.reason
    with pytest.raises(InputError, match="no earlier champion"):
        rollback(contest)
    assert rollback(contest, 2).promoted
    assert bearer(contest, CHALLENGER) is None


def test_a_version_that_does_not_predict_is_not_rolled_back_to(contest):
    promote(contest)
    path = _network(contest, 1)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="nothing was changed: version 1 cannot be loaded"):
        rollback(contest)
    assert bearer(contest, CHAMPION) == 2
    newest = decisions(contest)[0]
    assert (newest.kind, newest.promoted, newest.live) == ("rollback", False, 2)
    with pytest.raises(InputError, match="no version 9; it has: 1, 2"):
        rollback(contest, 9)
    with pytest.raises(InputError, match="is the champion already"):
        rollback(contest, 2)


def test_an_alias_moved_by_hand_is_seen_and_left_alone(contest):
    promote(contest)
    assert production_status(contest).decision.version == 2
    client = connect(contest)
    client.set_registered_model_alias(NAME, CHAMPION, "1")
    client.set_registered_model_alias(NAME, CHALLENGER, "2")
    assert "by hand in MLflow" in production_status(contest).remark
    made = promote(contest)
    assert not made.promoted
    assert "moved by hand" in made.reason


def test_a_promotion_killed_before_the_alias_moved_is_completed(contest):
    made = promote(contest)
    client = connect(contest)
    client.set_registered_model_alias(NAME, CHAMPION, "1")
    client.set_registered_model_alias(NAME, CHALLENGER, "2")
    client.update_run(made.id, status="RUNNING")
    assert settle(client, NAME) is None, "its process lives"
    client.set_tag(made.id, PROCESS, str(replace(ProcessIdentity.of(), pid=999_999_999)))
    completed = settle(client, NAME)
    assert completed == replace(made, resumed=True)
    assert (bearer(contest, CHAMPION), bearer(contest, CHALLENGER)) == (2, None)
    assert client.get_run(made.id).info.status == "FINISHED"


def test_the_order_of_decisions_does_not_depend_on_clocks(contest):
    (first,) = decisions(contest)
    with closing(sqlite3.connect(contest.root / "mlflow.db")) as database, database:
        two_days = 2 * 24 * 3600 * 1000  # a machine whose clock was ahead recorded it
        database.execute("UPDATE runs SET start_time = start_time + ? WHERE run_uuid = ?", (two_days, first.id))
    made = promote(contest)
    assert decisions(contest) == [made, first]
    assert [one.sequence for one in decisions(contest)] == [2, 1]
    assert history(connect(contest), NAME, most=1) == [made]
    status = production_status(contest)
    assert (status.decision, status.remark) == (made, "")
    back = rollback(contest)
    assert (back.version, back.sequence) == (1, 3)
    connect(contest).delete_tag(first.id, SEQUENCE)  # as earlier releases wrote it: older than all that have a number
    assert [one.id for one in decisions(contest)] == [back.id, made.id, first.id]


def _write_some(root: Path, writer: int) -> None:
    layout = Layout(root)
    client = connect(layout)
    for number in range(5):
        decide(client, layout, NAME, Decision("promote", writer, f"w{writer}", 1, False, f"number {number}"))


@pytest.mark.slow
def test_concurrent_writers_lose_nothing(contest):
    before = len(decisions(contest))
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        list(pool.map(_write_some, [contest.root] * 3, range(3)))
    found = decisions(contest)
    assert len(found) == before + 15
    for writer in range(3):
        assert [one.reason for one in found if one.candidate == f"w{writer}"] == [f"number {n}" for n in range(5)][::-1]
    client = connect(contest)
    experiment = client.get_experiment_by_name(experiment_name(NAME)).experiment_id
    assert not client.search_runs([experiment], "attributes.status = 'RUNNING'")


def test_the_commands_say_what_the_library_does(contest, monkeypatch):
    monkeypatch.chdir(contest.root)

    def command(*words: str) -> str:
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        assert done.stderr == ""
        return done.stdout

    assert "version 2 is the challenger" in command("champion")
    assert "version 2 (elman) is champion now" in command("promote")
    heading, newest, first = command("history").splitlines()
    assert heading.split()[:3] == ["when", "(UTC)", "what"]
    assert "2 elman" in newest
    assert "1 gru" in first
    assert json.loads(command("champion", "--json"))["version"] == 2
    listed = json.loads(command("history", "--json", "-n", "1"))
    assert listed == [asdict(decisions(contest)[0])]
    assert np.isclose(listed[0]["numbers"]["level"], 0.005)


def test_decisions_of_earlier_releases_can_be_read(contest, monkeypatch):
    figures = {"version": 1, "accuracy": 0.9125, "worst_class": "8", "worst_recall": 0.7, "parameters": 1000}
    rule = {"metric": "accuracy", "maximum_recall_loss": 0.02, "minimum_accuracy": 0.9, "minimum_class_recall": 0.5}
    numbers = {"images": 359, "challenger": figures, "champion": figures | {"accuracy": 0.9}, "p_value": 0.2}
    old = Decision("promote", 1, "gru", 1, False, "it is not shown to be better", numbers=numbers, rule=rule)
    decide(connect(contest), contest, NAME, old)
    assert decisions(contest)[0].numbers == numbers
    monkeypatch.chdir(contest.root)
    listed = CliRunner().invoke(app, ["history"])
    assert listed.exit_code == 0, listed.output
    newest = listed.stdout.splitlines()[1]
    assert "accuracy" in newest
    assert "0.9125" in newest
