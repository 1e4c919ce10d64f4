"""Fixtures: a trained project; one with two registered versions, and a copy of it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from recursight.data.store import open_store
from recursight.layout import Layout
from recursight.registry import register
from tests.projects import change_params, choose, copy_whole, own_environment, project, trained
from tests.serving.server import Server, serving

__all__ = ["own_environment", "project", "trained"]

LIMITS = {"max_bytes": 100_000, "max_pixels": 100_000, "max_images": 8, "poll_seconds": 0.1}


@pytest.fixture(scope="session")
def registered(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 (gru) is champion, version 2 (elman) challenges it. Only read it."""
    folder = tmp_path_factory.mktemp("served") / "project"
    shutil.copytree(trained, folder)
    layout = Layout(folder)
    change_params(layout, "registry", minimums={"accuracy": 0.3, "worst_class_recall": 0.0})
    params = layout.params.read_text()
    layout.params.write_text(params + f"serve: {json.dumps(LIMITS)}\n")
    register(layout)
    choose(layout, "elman")
    register(layout)
    return layout.root


@pytest.fixture(scope="module")
def two_versions(registered: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A copy of it for the tests of a file."""
    return copy_whole(registered, tmp_path_factory.mktemp("two") / "project")


@pytest.fixture(scope="module")
def server(two_versions: Layout) -> Iterator[Server]:
    with serving(two_versions) as running:
        yield running


@pytest.fixture
def own(two_versions: Layout, tmp_path: Path) -> Layout:
    """A copy to do harm to."""
    return copy_whole(two_versions.root, tmp_path / "project", ".recursight")


@pytest.fixture(scope="module")
def images(two_versions: Layout) -> np.ndarray:
    return np.array(open_store(two_versions.store).frames[:300])
