"""A look for drift in a real project: a registered champion, a log, reports, figures in MLflow, an alarm."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from recursight.data.store import open_store
from recursight.files import read_json, write_json
from recursight.layout import Layout
from recursight.operations.monitor import check_drift
from recursight.registry import register
from recursight.serving.champion import load_champion
from recursight.tracking import connect
from tests.commands import recursight
from tests.monitoring.log import write_log
from tests.projects import change_params, own_environment, project, trained
from tests.workspace import COMMANDS

__all__ = ["own_environment", "project", "trained"]


@pytest.fixture
def served(project: Layout) -> Layout:
    """A project with a champion, and little enough asked for to look at the digits' 360 test images."""
    content = project.params.read_text() + "monitor: {}\n"
    project.params.write_text(content)
    change_params(project, "monitor", minimum_rows=100)
    register(project)
    return project


def ask(layout: Layout, images: np.ndarray, **marks: object) -> None:
    """Has the champion answer, and logs it."""
    champion = load_champion(layout)
    write_log(layout.predictions, images, champion.answers(images), champion.vocabulary, **marks)  # type: ignore[arg-type]


def usual(layout: Layout, count: int = 250) -> np.ndarray:
    """Images like the reference: validation and test are drawn alike."""
    store = open_store(layout.store)
    rows = np.concatenate([store.indices("validation"), store.indices("test")])
    return store.first_frames(np.random.default_rng(0).choice(rows, count, replace=False))


class Server(BaseHTTPRequestHandler):
    """Takes events, as Prefect's API does."""

    events: list[dict] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.events.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def listener() -> Iterator[list[dict]]:
    """The events that a server has got."""
    Server.events.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/api"
        try:
            with temporary_settings({PREFECT_API_URL: url}):
                yield Server.events
        finally:
            server.shutdown()
            thread.join()


def test_the_usual_does_not_alarm(served, listener):
    ask(served, usual(served))
    found = check_drift(served)
    assert not found.drifted
    assert (found.version, found.candidate, found.verdict.rows, found.alarm) == (1, "gru", 250, "none")
    assert found.sentence == "version 1 (gru): 250 predictions are like its reference."
    assert listener == []


def test_drift_alarms_once_and_leaves_a_report_and_figures(served, listener):
    ask(served, 255 - usual(served))
    first, second = check_drift(served), check_drift(served)
    assert first.drifted
    assert second.drifted
    assert (first.alarm, second.alarm) == ("sent", "repeated")
    (event,) = listener
    assert event["event"] == "model.drifted"
    assert event["resource"] == {"prefect.resource.id": "recursight.model.recursight", "recursight.retrain": "yes"}
    assert event["payload"]["sentence"] == first.sentence
    assert event["payload"]["version"] == 1
    assert "brightness" in event["payload"]["features"]
    page = first.report.read_text()
    assert "Drift: recursight version 1, gru" in page
    assert not re.search(r"""(src|href)=["']?(?!data:|#)|https?://|@import|<script""", page)
    assert read_json(first.report.with_suffix(".json")) == first.as_dict() | {"alarm": "sent"}
    client = connect(served)
    experiment = client.get_experiment_by_name("recursight-monitoring")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status, run.data.tags["drifted"]) == ("version 1 (gru)", "FINISHED", "yes")
    history = client.get_metric_history(run.info.run_id, "psi/brightness")
    assert [metric.step for metric in history] == [0, 1]
    assert history[0].value == pytest.approx({f.name: f.psi for f in first.verdict.features}["brightness"])
    assert len(client.list_artifacts(run.info.run_id, "reports")) == 4
    candidates = client.get_experiment_by_name("recursight")
    names = {run.info.run_name for run in client.search_runs([candidates.experiment_id])}
    assert names == {"gru", "elman"}, "the comparison of candidates stays what it was"


def test_an_alarm_is_repeated_when_it_is_old_or_of_another_version(served, listener):
    ask(served, 255 - usual(served))
    check_drift(served)
    told = read_json(served.monitoring / "alarm.json")
    write_json(served.monitoring / "alarm.json", told | {"at": "2020-01-01T00:00:00+00:00"})
    assert check_drift(served).alarm == "sent"
    write_json(served.monitoring / "alarm.json", told | {"version": 7})
    assert check_drift(served).alarm == "sent"
    assert len(listener) == 3


def test_an_alarm_that_nobody_took_is_sent_again(served):
    ask(served, 255 - usual(served))
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert check_drift(served).alarm == "unheard"
        assert check_drift(served).alarm == "unheard"
    assert not (served.monitoring / "alarm.json").exists()


def test_an_alarm_may_leave_retraining_alone(served, listener):
    change_params(served, "monitor", retrain=False)
    ask(served, 255 - usual(served))
    assert check_drift(served).alarm == "sent"
    assert listener[0]["resource"]["recursight.retrain"] == "no"


def test_only_the_champions_own_and_recent_predictions_count(served):
    shifted = 255 - usual(served)
    ask(served, shifted, hours_ago=25)
    ask(served, shifted, version=2)
    ask(served, shifted, model="another")
    found = check_drift(served)
    assert found.verdict is None
    assert "made 0 predictions in the last 24 hours; at least 100 are needed" in found.sentence
    change_params(served, "monitor", window_hours=26)
    assert check_drift(served).drifted
    ask(served, usual(served), hours_ago=0.5)
    change_params(served, "monitor", window_rows=250)
    assert not check_drift(served).drifted


def test_no_champion_is_a_sentence(project):
    found = check_drift(project)
    assert (found.version, found.verdict, found.report) == (None, None, None)
    assert found.sentence == "recursight has no champion yet: nothing to compare."


def test_a_version_without_reference_is_a_sentence(project):
    """The reference comes from the store that was evaluated; this project has another one by now."""
    path = project.store / "store.json"
    write_json(path, read_json(path) | {"digest": "another"})
    register(project)
    ask(project, usual(project))
    assert "was registered without a reference" in check_drift(project).sentence


def test_reports_are_bounded(served, monkeypatch):
    monkeypatch.setattr("recursight.operations.monitor.MOST_REPORTS", 2)
    ask(served, usual(served))
    reports = [check_drift(served).report for _ in range(3)]
    assert sorted(served.monitoring.glob("*.html")) == reports[1:]
    assert len(list(served.monitoring.glob("2*.json"))) == 2


def test_the_command_tells_drift_by_its_status(served):
    command = [str(COMMANDS / "recursight"), "monitor"]
    waiting = subprocess.run(command, cwd=served.root, capture_output=True, text=True)
    assert (waiting.returncode, waiting.stderr) == (0, "")
    assert "are needed for a check" in waiting.stdout
    ask(served, 255 - usual(served))
    drifted = recursight(served.root, "monitor")
    assert drifted.returncode == 3, drifted.stderr
    assert re.search(r"^brightness\s+yes\s+\d+\.\d{3}", drifted.stdout, re.MULTILINE)
    assert "differ from its reference" in drifted.stdout
    told = json.loads(recursight(served.root, "monitor", "--json").stdout)
    assert told["drifted"] is True
    assert told["verdict"]["rows"] == 250
