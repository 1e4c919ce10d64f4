"""The flow `monitor` on real servers with a real worker. What drift starts, see `operations/test_platform.py`."""

from collections.abc import Iterator
from typing import Any

import pytest

from recursight.layout import Layout
from tests.monitoring.log import log_negatives
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


def runs(platform: Platform) -> list[dict[str, Any]]:
    """Of the flow `monitor`, newest first."""
    body = {"flows": {"name": {"any_": ["monitor"]}}, "sort": "EXPECTED_START_TIME_DESC"}
    found: list[dict[str, Any]] = platform.ask("prefect", "/api/flow_runs/filter", body)
    return found


@pytest.mark.thorough
def test_without_predictions_it_waits(platform: Platform) -> None:
    assert "Waiting" in platform.workspace.run(*RUN)
    assert "made 0 predictions" in runs(platform)[0]["state"]["message"]
    assert platform.retrainings() == []


@pytest.mark.thorough
def test_drift_is_told_once(platform: Platform) -> None:
    log_negatives(Layout(platform.workspace.root))
    for _ in range(2):
        assert "Drifted" in platform.workspace.run(*RUN)
        until(lambda: [run for run in platform.retrainings() if run["state_type"] == "COMPLETED"])
    platform.rest()
    assert len(platform.retrainings()) == 1
