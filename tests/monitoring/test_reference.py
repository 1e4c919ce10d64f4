"""The reference of a version is the test split that it was evaluated on, and stays with it."""

import pandas as pd
import pytest

from recursight.data.statistics import image_statistics
from recursight.data.store import open_store
from recursight.files import read_json, write_json
from recursight.models.bundle import read_card
from recursight.monitoring.reference import reference_of
from recursight.registry import find_version, register
from recursight.registry.reference import reference_of_version
from recursight.tasks import make_task
from recursight.tracking import connect


def reference(project):
    vocabulary = read_card(project.bundle("gru", 0)).vocabulary
    task = make_task("classification", {})
    return reference_of(project.store, project.evaluation_of("gru", 0), task, vocabulary)


def test_it_is_the_test_split(project):
    store = open_store(project.store)
    found = reference(project)
    images = store.first_frames(store.indices("test"))
    assert len(found) == len(images)
    for name, values in image_statistics(images).items():
        assert (found[name].to_numpy() == values).all()
    told = read_json(project.evaluation_of("gru", 0) / "metrics.json")["test"]["accuracy"]
    actual = store.targets_of(store.indices("test"))["value"].to_numpy()
    assert (found["predicted"].to_numpy() == actual).mean() == pytest.approx(told)
    assert found["confidence"].between(0.1, 1).all()


def test_a_version_keeps_its_reference_when_the_workspace_moves_on(project):
    before = reference(project)
    made = register(project)
    for path in (project.store / "statistics.parquet", project.evaluation_of("gru", 0) / "predictions.parquet"):
        path.unlink()
    kept = reference_of_version(project, find_version(connect(project), made.name, made.version))
    pd.testing.assert_frame_equal(kept, before)


def test_there_is_none_of_another_store(project):
    write_json(project.store / "store.json", read_json(project.store / "store.json") | {"digest": "other"})
    assert reference(project) is None
    made = register(project)
    assert made.alias == "champion"
    assert reference_of_version(project, find_version(connect(project), made.name, made.version)) is None
