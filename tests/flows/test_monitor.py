"""Drift, from the log to the retraining, on real servers with a real worker."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from recursight.data.store import open_store
from recursight.layout import Layout
from tests.monitoring.log import write_log
from tests.platforms import QUICK, Platform, running, until
from tests.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

RUN = ("prefect", "deployment", "run", "monitor/scheduled", "--watch")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Servers, and a champion whose every schedule is off."""
    workspace = Workspace(tmp_path_factory.mktemp("monitored"))
    workspace.environment |= QUICK
    workspace.finish()
    workspace.change_params(retrain={"schedule": False}, monitor={"schedule": False, "minimum_rows": 100})
    workspace.commit("few candidates")
    with running(workspace) as made:
        yield made


def log(platform: Platform, *, inverted: bool) -> None:
    layout = Layout(platform.workspace.root)
    store = open_store(layout.store)
    images = store.first_frames(store.indices("test"))
    targets = store.targets_of(store.indices("test"))["value"].cat
    answers = np.full((len(images), len(targets.categories)), 0.01, np.float32)
    answers[np.arange(len(images)), targets.codes] = 0.91
    write_log(layout.predictions, 255 - images if inverted else images, answers, tuple(targets.categories))


def runs(platform: Platform) -> list[dict[str, Any]]:
    """Of the flow `monitor`, newest first."""
    body = {"flows": {"name": {"any_": ["monitor"]}}, "sort": "EXPECTED_START_TIME_DESC"}
    found: list[dict[str, Any]] = platform.ask("prefect", "/api/flow_runs/filter", body)
    return found


def test_without_predictions_it_waits(platform: Platform) -> None:
    assert "Waiting" in platform.workspace.run(*RUN)
    assert "made 0 predictions" in runs(platform)[0]["state"]["message"]
    assert platform.retrainings() == []


def test_drift_starts_one_retraining_that_says_why(platform: Platform) -> None:
    log(platform, inverted=True)
    assert "Drifted" in platform.workspace.run(*RUN)
    told = runs(platform)[0]["state"]["message"]
    assert "differ from its reference in" in told
    (retraining,) = until(lambda: [run for run in platform.retrainings() if run["state_type"] == "COMPLETED"])
    assert retraining["created_by"]["type"] == "AUTOMATION"
    assert retraining["state_name"] == "Unchanged"  # the same data gives the same model
    assert f"asked for by drift: {told}" in retraining["state"]["message"]
    artifacts = platform.ask("prefect", "/api/artifacts/latest/filter", {"sort": "CREATED_DESC", "limit": 50})
    data = {artifact["key"]: artifact["data"] for artifact in artifacts}
    assert data["drift"].startswith("# Drift\n")
    assert "| brightness | **yes** |" in data["drift"]
    assert f"| asked for by drift | {told} |" in data["retraining"]


def test_the_same_drift_is_not_told_again(platform: Platform) -> None:
    assert "Drifted" in platform.workspace.run(*RUN)
    platform.rest()
    assert len(platform.retrainings()) == 1
