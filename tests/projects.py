"""A small project, trained and evaluated for real, for the tests of what comes after."""

import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from recursight.files import write_json
from recursight.layout import Layout
from recursight.tracking import ensure_store
from tests.workspace import Workspace, move_tracking_store

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own type hints, while it is imported
    import mlflow.pyfunc  # noqa: F401

PARAMS = {
    "train": {"epochs": 3, "learning_rate": 0.01},
    "evaluate": {"mistakes": 4},
    "registry": {"minimums": {"accuracy": 0.3, "worst_class_recall": 0.0}},
    "candidates": {
        "gru": {"layer": "gru", "hidden": 16},
        "elman": {"layer": "elman", "hidden": 24},
    },
}


def change_params(layout: Layout, section: str, **values: object) -> None:
    content = yaml.safe_load(layout.params.read_text())
    content[section] = content.get(section, {}) | values
    layout.params.write_text(yaml.safe_dump(content))


def choose(layout: Layout, winner: str) -> None:
    """Writes a comparison with this outcome."""
    write_json(layout.comparison / "comparison.json", {"winner": winner, "winner_seed": 0, "ranking": []})


def copy_whole(origin: Path, root: Path, *without: str) -> Layout:
    """Copies a project, its models too."""
    shutil.copytree(origin, root, ignore=shutil.ignore_patterns(*without))
    move_tracking_store(origin, root)
    return Layout(root)


@pytest.fixture(scope="session")
def trained(digits_store: Path) -> Path:
    """The project's folder, with an empty tracking store. Made by the worker that needs it first; only read it."""
    root = Workspace.shared / "trained"
    with FileLock(f"{root}.lock"):
        if not (root / "mlflow.db").exists():
            shutil.rmtree(root, ignore_errors=True)
            train_small(root, digits_store)
    return root


def train_small(root: Path, digits_store: Path) -> None:
    """Makes a project with two trained and evaluated candidates from a store."""
    from recursight.stages import evaluate, train

    layout = Layout(root)
    layout.root.mkdir()
    layout.params.write_text(yaml.safe_dump(PARAMS))
    (layout.root / "dvc.yaml").write_text("stages: {}\n")
    shutil.copytree(digits_store, layout.store)
    md5 = {"path": "data", "md5": "0123456789abcdef0123456789abcdef.dir"}
    (layout.root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"prepare": {"deps": [md5]}}}))
    for name in PARAMS["candidates"]:
        train.run(layout, name, defer_tracking=True)
        evaluate.run(layout, name)
    shutil.rmtree(layout.state)
    choose(layout, "gru")
    ensure_store(layout)


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Layout:
    """A copy to work in."""
    shutil.copytree(trained, tmp_path / "project")
    return Layout(tmp_path / "project")


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """No store but the project's, and no settings that one test leaves to the next."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("MLFLOW_"):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)
